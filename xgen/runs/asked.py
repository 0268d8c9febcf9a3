"""What a person asks of a training that runs: files in `asked/`, which rank 0 looks at; and what came of it."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.runs.rundir import RunDir, write_atomic


class ProfileRequest(BaseModel):
    """Record so many steps of these ranks, from the next one on. Of one attempt: the next one knows nothing of it."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    number: int  # milliseconds since the epoch, when it was asked for
    attempt: int
    steps: int
    ranks: tuple[int, ...]
    memory: bool = False

    def write(self, run: RunDir) -> None:
        profile_file(run).parent.mkdir(exist_ok=True)
        write_atomic(profile_file(run), self.model_dump_json() + "\n")


class Operator(BaseModel):
    """A row of the table of what took longest: seconds of its own, without what it called."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    name: str
    calls: int
    seconds: float
    share: float  # of all operators


class ProfileResult(BaseModel):
    """What a rank recorded; `rank-R.json` beside its files. Names are those of files in the same folder."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    number: int
    rank: int
    first_step: int
    last_step: int
    seconds: float  # of the steps, as they were recorded
    trace: str = ""
    memory: str = ""  # '' where none was asked for, or there is no GPU
    device: str = "cpu"  # whose time the operators took
    top: tuple[Operator, ...] = ()
    error: str = ""

    def write(self, folder: Path) -> None:
        write_atomic(folder / f"rank-{self.rank}.json", self.model_dump_json(indent=1) + "\n")


def new_request(attempt: int, steps: int, ranks: tuple[int, ...], *, memory: bool) -> ProfileRequest:
    return ProfileRequest(number=int(time.time() * 1000), attempt=attempt, steps=steps, ranks=ranks, memory=memory)


def profile_file(run: RunDir) -> Path:
    return run.path / "asked" / "profile.json"


def profile_folder(run: RunDir, attempt: int, first_step: int) -> Path:
    return run.attempt_dir(attempt) / "profile" / f"step-{first_step}"


def read_profile_request(run: RunDir) -> ProfileRequest | None:
    """None where nothing is asked for, or by somebody who writes it otherwise."""
    try:
        return ProfileRequest.model_validate_json(profile_file(run).read_bytes())
    except (OSError, ValidationError):
        return None


def profile_results(run: RunDir, request: ProfileRequest) -> dict[int, tuple[Path, ProfileResult]]:
    """What there is of it, by rank, each with its folder."""
    found = {}
    for file in sorted(run.attempt_dir(request.attempt).glob("profile/step-*/rank-*.json")):
        try:
            result = ProfileResult.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            continue
        if result.number == request.number:
            found[result.rank] = (file.parent, result)
    return found
