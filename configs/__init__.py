"""What to run: every number of an experiment, and nothing else."""
