"""What a task knows about itself, and how it tells the host that another try cannot help."""

from __future__ import annotations

from dataclasses import dataclass, field

from xgen.hang.board import Progress
from xgen.hang.config import node_name
from xgen.runs.events import EventWriter
from xgen.runs.rundir import RunDir
from xgen.runs.stop import StopFlag


class Refused(Exception):  # noqa: N818 - a decision, not an accident
    """The work cannot be done however often it is tried: the run ends with exit code 78."""


class Diverged(Refused):
    """The training has come to nothing by its own doing: of this very spec there is no better."""


@dataclass(frozen=True)
class TaskContext:
    """One rank of one attempt, at one stage of the work. `events` is there on rank 0 only. `progress` is told of every
    step and of what begins, and its watchdog of what does not move any more.

    Where the stage is a job array, `run` is that of the shard.
    """

    run: RunDir
    attempt: int
    job_id: str
    rank: int
    local_rank: int
    world_size: int
    stop: StopFlag
    events: EventWriter | None
    stage: int = 0
    shard: int = 0
    num_shards: int = 1
    progress: Progress = field(default_factory=Progress)

    @property
    def node(self) -> str:
        """SLURM's name of this node."""
        return node_name()
