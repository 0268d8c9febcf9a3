"""Training: the torchtitan adapter, checkpoints, the stop. Importing this package is cheap; `run_pretrain` is not."""

from xgen.train.run import run_pretrain

__all__ = ["run_pretrain"]
