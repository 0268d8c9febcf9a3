"""xgen: typed job specs become SLURM jobs that train, survive preemption and are watched."""

__version__ = "0.1.0"
