"""All runs below a run root, for `xgen exporter`: one process that sees those too that no attempt runs of."""

from xgen.metrics.fleet.runs import Runs

__all__ = ["Runs"]
