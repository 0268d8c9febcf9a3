"""The run directory: everything about a run, and where each piece lies (docs/runs.md)."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

RUN_NAME = re.compile(r"^(?P<name>[a-z0-9][a-z0-9-]*)-(?P<id>[a-z0-9]{6})$")
_STEP_DIR = re.compile(r"^step-(\d+)$")
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # no 0/o and 1/l: people read these names aloud


def new_run_id() -> str:
    """Six characters that make a run's name unique; about 10^9 of them."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(6))


def write_atomic(path: Path, text: str, mode: int = 0o664) -> None:
    """Write `text` durably: a reader sees the old file or the new one, never a part of it."""
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(tmp, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        tmp.replace(path)
    except BaseException:
        tmp.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class RunDir:
    """Paths of one run. Constructing it touches nothing on disk."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def spec_file(self) -> Path:
        return self.path / "spec.yaml"

    @property
    def profile_file(self) -> Path:
        return self.path / "cluster.yaml"

    @property
    def code_dir(self) -> Path:
        return self.path / "code"

    @property
    def image_file(self) -> Path:
        """What the tag or name of the image meant at submission; absent where no container runs."""
        return self.path / "image.json"

    def image_file_of(self, stage: str) -> Path:
        """The same of a stage that has an image of its own."""
        return self.path / f"image-{stage}.json"

    @property
    def events_dir(self) -> Path:
        return self.path / "events"

    @property
    def checkpoints_dir(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics_dir(self) -> Path:
        return self.path / "metrics"

    @property
    def attempts_dir(self) -> Path:
        return self.path / "attempts"

    @property
    def cancelled_file(self) -> Path:
        """Present once a person has cancelled the run: nothing restarts it, `xgen resume` removes it."""
        return self.path / "cancelled"

    @property
    def resumed_file(self) -> Path:
        """Tells the next attempt that a person started it: failures are counted anew."""
        return self.path / "resumed"

    @property
    def discovery_file(self) -> Path:
        """Prometheus' file_sd takes a wildcard in the last path segment only, so all runs share a folder."""
        return self.path.parent / ".discovery" / f"{self.name}.json"

    @property
    def ended_file(self) -> Path:
        """Present once nothing more follows: what serves the run ends too. `xgen resume` removes it."""
        return self.path / "ended"

    def job_file(self, stage: int) -> Path:
        """Holds the number of the newest job of a stage."""
        return self.path / "jobs" / str(stage)

    @property
    def shards_dir(self) -> Path:
        """The shards of each stage that is a job array: a folder a stage, in it a run directory a shard."""
        return self.path / "shards"

    def shard(self, stage: str, number: int) -> RunDir:
        """A shard of a job array: attempts, events and checkpoints of its own, and links to what the run shares."""
        return RunDir(self.shards_dir / (stage or "array") / str(number))

    @property
    def whole(self) -> RunDir:
        """The run that this is a shard of; of what is none, itself."""
        parents = self.path.parents
        return RunDir(parents[2]) if len(parents) > 2 and parents[1] == RunDir(parents[2]).shards_dir else self

    def attempt_dir(self, attempt: int) -> Path:
        return self.attempts_dir / f"{attempt:04d}"

    def last_attempt(self) -> int:
        """Number of the newest attempt, 0 when none has started."""
        if not self.attempts_dir.is_dir():
            return 0
        return max((int(p.name) for p in self.attempts_dir.iterdir() if p.name.isdecimal()), default=0)

    def checkpoint_steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending. Complete is not verified: loading verifies."""
        if not self.checkpoints_dir.is_dir():
            return []
        found = ((_STEP_DIR.match(p.name), p) for p in self.checkpoints_dir.iterdir())
        return sorted(int(m[1]) for m, p in found if m and (p / "manifest.json").is_file())

    def create(self) -> None:
        """Make the empty tree. Raises FileExistsError when the run exists."""
        self.path.mkdir(parents=True)
        for part in (self.events_dir, self.attempts_dir, self.checkpoints_dir, self.metrics_dir):
            part.mkdir()


def list_runs(run_root: Path) -> list[RunDir]:
    """Runs below `run_root`, oldest first by the time of their resolved spec; those of others that cannot be read too,
    by the time of their folder."""
    if not run_root.is_dir():
        return []
    runs = (RunDir(path) for path in run_root.iterdir() if RUN_NAME.match(path.name))
    times = {run: time for run in runs if (time := _submitted(run)) is not None}
    return sorted(times, key=times.__getitem__)


def _submitted(run: RunDir) -> float | None:
    """Seconds since the epoch; None for what is no run, or is one no longer."""
    try:
        return run.spec_file.stat().st_mtime
    except PermissionError:
        return run.path.stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return None
