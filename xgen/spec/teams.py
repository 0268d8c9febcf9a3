"""The projects of a cluster: who is charged, who shares the files, and how many GPU-hours and bytes they have."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from xgen.spec.base import Number, Strict
from xgen.spec.units import Bytes, Duration


class Budget(Strict):
    """GPU-hours of a window that moves with the clock, by the events of the runs (`xgen usage`)."""

    gpu_hours: Number = Field(gt=0, description="that all its runs together may hold")
    per: Duration = Field(default=30 * 86400, ge=1, description="how far back counts, e.g. 30d")
    over: Literal["warn", "refuse"] = Field(
        default="warn", description="what `xgen submit` does with a run that asks for more than is left"
    )


class Quota(Strict):
    """Bytes on the disk of the run root."""

    size: Bytes = Field(ge=1, description="that all its run directories together may take, e.g. 40TB")
    over: Literal["warn", "refuse"] = Field(
        default="warn", description="what `xgen submit` does where the checkpoints of a run have no room in it"
    )


class Project(Strict):
    """One project, by the name that specs write as `project:`."""

    account: str | None = Field(default=None, description="the SLURM account that is charged; default: its name")
    group: str | None = Field(
        default=None, description="the unix group that may write in its run directories; default: nobody but the owner"
    )
    budget: Budget | None = Field(default=None, description="default: no limit")
    quota: Quota | None = Field(default=None, description="default: no limit")
