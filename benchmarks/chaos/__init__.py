"""Random faults on the dev SLURM, under many runs at once, until every run has ended as it should: `__main__.py`."""
