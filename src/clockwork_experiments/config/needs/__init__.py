"""Which files and settings an entry of the configuration needs.

Pure functions of the resolved configuration and of a job's wildcards, one module for
each part of the workflow. Rules name them; `workflow/rules/common.smk` binds the
configuration. Paths are relative to the folder in which Snakemake runs.
"""
