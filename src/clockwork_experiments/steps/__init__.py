"""The workflow's steps: one module per rule, with the command line and the I/O."""
