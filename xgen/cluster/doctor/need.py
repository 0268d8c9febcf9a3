"""What a spec needs of a site, job by job."""

from __future__ import annotations

from dataclasses import dataclass

from xgen.spec.restart import RestartBy


@dataclass(frozen=True)
class Need:
    """Of one job of a spec. Times are seconds, sizes bytes."""

    name: str  # of the spec, and of its stage where it has several
    partition: str
    nodes: int
    gpus_per_node: int
    cpus_per_node: int
    memory: int | None  # a node; None: what the partition gives
    time: float
    stop_seconds: float  # from the signal to the end; 0: it keeps no checkpoints
    save_seconds: float
    checkpoint_bytes: int  # of all that lie in the run root at once
    shards: int  # of its job array; 0: it is none
    shm: int
    account: str | None
    restart_by: RestartBy
