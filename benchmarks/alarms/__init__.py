"""Planted faults on the dev SLURM, and whether the right alerts come and go: `python -m benchmarks.alarms`.

Time runs FACTOR times as fast: every duration in the rules, and every pause of the exporter and of Alertmanager, is
that much shorter. Nothing else differs from what a site runs.
"""

FACTOR = 15
