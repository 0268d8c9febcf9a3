"""`xgen shell`: a shell beside a task of a run."""

from __future__ import annotations

import sys

from xgen.cli.common import ClusterOption, RunArgument, find_run
from xgen.cli.exec import NodeOption, RankOption, ShardOption, start

_SHELL = ["sh", "-c", "exec $(command -v bash || echo sh)"]


def command(
    run: RunArgument,
    rank: RankOption = None,
    node: NodeOption = None,
    shard: ShardOption = None,
    cluster: ClusterOption = None,
) -> None:
    """Open a shell beside a task of a run: on its node, in its container, with its environment and its GPUs."""
    start(find_run(run, cluster), _SHELL, rank, node, shard, terminal=sys.stdin.isatty())
