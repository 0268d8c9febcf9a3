"""All runs below a run root, for `xgen exporter`: one process that sees those too that no attempt runs of."""

from xgen.metrics.fleet.messages import Messages
from xgen.metrics.fleet.runs import Runs
from xgen.metrics.fleet.settling import Settling

__all__ = ["Messages", "Runs", "Settling"]
