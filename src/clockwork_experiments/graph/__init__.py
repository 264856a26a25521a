"""What the workflow's rules ask: which files there are to make, of what, with what.

A rule names a function of these modules or of `config.needs`; `binding` tells functions
the configuration or the registry, and Snakemake the wildcards of a job.
"""
