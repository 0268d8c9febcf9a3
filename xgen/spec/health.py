"""Health of nodes: what a job checks before its first step, and what a team does about a node that is broken."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator

from xgen.spec.base import Count, Number, Strict
from xgen.spec.units import Bytes, Duration

Check = Literal["gpus", "memory", "disk", "shm", "clock", "filesystem"]
Act = Literal["observe", "exclude"]


class Health(Strict):
    """Checks on every node of a job, before each attempt (docs/nodes.md)."""

    checks: list[Check] = Field(
        default_factory=lambda: list(get_args(Check)), description="on the host, before the tasks; []: none"
    )
    limit: Duration = Field(default=60, description="a check that has not answered by then is a finding")
    bandwidth: Bytes | None = Field(
        default=None,
        description="floor of an all-reduce over the allocation, bytes/s of the bus; default: the profile's",
    )
    act: Act | None = Field(default=None, description="observe: say it and go on; default: the profile's")

    @field_validator("limit")
    @classmethod
    def _some_time(cls, value: int) -> int:
        if not 5 <= value <= 600:
            raise ValueError("no check answers in so short a time, or nobody waits so long; write 5s to 10m, e.g. 60s")
        return value


class Nodes(Strict):
    """What the team does about broken nodes here: the exclude list of the run root."""

    act: Act = Field(
        default="exclude",
        description="exclude: a node that is found broken gets no job of this run root for a while; "
        "observe: say it, and exclude nothing",
    )
    deaths: Count = Field(default=2, ge=1, description="jobs that died by a node before it is excluded")
    window: Duration = Field(default=86400, description="in which they count")
    exclude_for: Duration = Field(default=86400, description="after that the node is given to jobs again")
    most: Number = Field(
        default=0.1, ge=0, lt=1, description="share of a partition's nodes that is excluded at most, or one node"
    )
    tmp: Bytes = Field(default=2**30, description="room that /tmp of a node has at least")
    bandwidth: Bytes | None = Field(
        default=None, description="floor of an all-reduce over several nodes, bytes/s of the bus; default: not measured"
    )
