"""What a rank says of itself when it ends (`outcome.<rank>.json`) and what the host made of all of them.

The host's side is bash (`xgen/cluster/host/`), because it may use nothing from the container; it finds
the status by the text `"status":"..."`, so these files are written by `model_dump_json` only.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.runs.rundir import RunDir, write_atomic

RankStatus = Literal["finished", "stopped", "crashed", "refused"]
AttemptStatus = Literal["finished", "stage_finished", "stopped", "crashed", "refused", "lost", "cancelled"]

# Exit codes of the batch script; 75 and 78 are EX_TEMPFAIL and EX_CONFIG of sysexits.h.
EXIT_FINISHED, EXIT_FAILED, EXIT_STOPPED, EXIT_REFUSED = 0, 1, 75, 78


class RankOutcome(BaseModel):
    model_config = ConfigDict(frozen=True, defer_build=True)

    status: RankStatus
    reason: str = ""
    step: int | None = None
    time: float

    def write(self, run: RunDir, attempt: int, rank: int) -> None:
        write_atomic(run.attempt_dir(attempt) / f"outcome.{rank}.json", self.model_dump_json() + "\n")


class AttemptOutcome(BaseModel):
    """`outcome.json`, written by the host, once per attempt."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    status: AttemptStatus
    reason: str = ""
    durable_step: int = -1  # newest complete checkpoint when the attempt ended, -1 when none
    failures: int = 0  # failed attempts in a row without a new checkpoint, this one included
    stage: int = 0
    gpu_seconds: int = 0  # for which it had its nodes, times their GPUs
    time: float


def read_attempt_outcome(run: RunDir, attempt: int) -> AttemptOutcome | None:
    """None while the attempt runs, or when it ended without a decision (batch script killed, node lost).

    Raises OSError when the run cannot be read.
    """
    return _read(run.attempt_dir(attempt) / "outcome.json")


def _read(path: Path) -> AttemptOutcome | None:
    try:
        return AttemptOutcome.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, ValidationError):
        return None


def gpu_seconds(run: RunDir) -> int:
    """Of all attempts that have ended, those of shards too."""
    files = (*run.attempts_dir.glob("*/outcome.json"), *run.shards_dir.glob("*/*/attempts/*/outcome.json"))
    return sum(outcome.gpu_seconds for outcome in map(_read, files) if outcome)


def read_rank_outcomes(run: RunDir, attempt: int) -> dict[int, RankOutcome]:
    """What the ranks of an attempt have said of themselves, by rank. Raises OSError when the run cannot be read."""
    found = {}
    for file in run.attempt_dir(attempt).glob("outcome.*.json"):
        rank = file.name.split(".")[1]
        if rank.isdecimal():
            with suppress(FileNotFoundError, ValidationError):
                found[int(rank)] = RankOutcome.model_validate_json(file.read_bytes())
    return found
