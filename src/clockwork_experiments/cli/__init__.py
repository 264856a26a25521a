"""The command line, ``clockwork``: each command makes targets of the workflow."""
