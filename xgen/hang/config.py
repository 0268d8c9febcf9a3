"""What a watchdog is told by the rank that starts it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from xgen.hang.limits import Limits


class Config(NamedTuple):
    """`limits` are those of the spec; without any, a watchdog makes heartbeats and no more."""

    run: str
    attempt: int
    job_id: str
    rank: int
    local_rank: int
    world_size: int
    node_id: int  # number of the node in the job
    node: str
    pid: int  # of the rank
    main_thread: int
    board_fd: int
    trace_fd: int
    limits: Limits
    dump_time: float  # seconds that the ranks get to write down where they stand

    def to_json(self) -> str:
        return json.dumps({**self._asdict(), "limits": self.limits._asdict()})

    @classmethod
    def from_json(cls, text: str) -> Config:
        said = json.loads(text)
        return cls(**{**said, "limits": Limits(**said["limits"])})

    @property
    def run_dir(self) -> Path:
        return Path(self.run)

    @property
    def attempt_dir(self) -> Path:
        return self.run_dir / "attempts" / f"{self.attempt:04d}"

    @property
    def hang_dir(self) -> Path:
        return self.attempt_dir / "hang"


def node_name() -> str:
    """SLURM's name of this node; where the task is not told it, the machine's, which several nodes may share."""
    if name := os.environ.get("SLURMD_NODENAME"):
        return name
    host = os.uname().nodename.partition(".")[0]
    return host if os.environ.get("SLURM_NNODES", "1") == "1" else f"{host}-{os.environ.get('SLURM_NODEID', '0')}"
