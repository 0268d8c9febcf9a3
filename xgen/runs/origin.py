"""Where a run comes from: `origin.json` of one that was forked, `init.json` of one that began from other weights."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.runs.rundir import RunDir, list_runs, write_atomic, write_once


class Origin(BaseModel):
    """The checkpoint that a run began from, and what its spec has other than that run's."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    parent: str  # name of the run
    parent_path: str  # its directory, then
    step: int
    changed: dict[str, Any]  # new value by key; None where the key is gone
    data_changed: bool  # the data order from `step` on is another than the checkpoint's
    time: float  # seconds since the epoch

    def write(self, run: RunDir) -> None:
        write_atomic(run.path / "origin.json", self.model_dump_json(indent=1) + "\n")

    def __str__(self) -> str:
        return f"forked from {self.parent} at step {self.step}"

    @property
    def checkpoint(self) -> str:
        return f"{self.parent}@{self.step}"


def read_origin(run: RunDir) -> Origin | None:
    """None for a run that began from nothing. Raises OSError when it cannot be read."""
    try:
        return Origin.model_validate_json((run.path / "origin.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


class Beginning(BaseModel):
    """The weights that a post-training began with: a checkpoint of another run, or a Hugging Face folder."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    run: str | None  # its name; None for a folder
    path: str  # of the run's directory, or the folder
    step: int | None
    fingerprint: str  # of all that was read; a hash of the checkpoint's manifest, or of the folder's files
    time: float  # seconds since the epoch

    def write(self, run: RunDir) -> Beginning:
        """Returns what counts: of several that write at once, the shards of a job array, the first one's."""
        if write_once(run.path / "init.json", self.model_dump_json(indent=1) + "\n"):
            return self
        return read_beginning(run) or self

    def __str__(self) -> str:
        return f"{self.run}@{self.step}" if self.run else self.path


def read_beginning(run: RunDir) -> Beginning | None:
    """None for a run that has not begun, or began from nothing. Raises OSError when it cannot be read."""
    try:
        return Beginning.model_validate_json((run.path / "init.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def forks_of(run: RunDir) -> dict[int, list[str]]:
    """Names of the runs beside this one that were forked from it, by step."""
    forks: dict[int, list[str]] = {}
    for other in list_runs(run.path.parent):
        try:
            origin = read_origin(other)
        except OSError:  # somebody else's
            continue
        if origin and origin.parent == run.name:
            forks.setdefault(origin.step, []).append(other.name)
    return forks
