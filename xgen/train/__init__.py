"""Training: the torchtitan adapter, checkpoints, the stop. Importing this package is cheap; `run_training` is not."""

from xgen.train.run import run_training

__all__ = ["run_training"]
