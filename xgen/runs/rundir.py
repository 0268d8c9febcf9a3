"""The run directory: everything about a run, and where each piece lies (docs/runs.md)."""

from __future__ import annotations

import os
import random
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

RUN_NAME = re.compile(r"^(?P<name>[a-z0-9][a-z0-9-]*)-(?P<id>[a-z0-9]{6})$")
_STEP_DIR = re.compile(r"^step-(\d+)$")
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # no 0/o and 1/l: people read these names aloud


def new_run_id(seed: str | None = None) -> str:
    """Six characters that make a run's name unique; about 10^9 of them. Of the same seed the same."""
    chance = secrets.SystemRandom() if seed is None else random.Random(seed)
    return "".join(chance.choice(_ALPHABET) for _ in range(6))


def write_atomic(path: Path, text: str, mode: int = 0o664) -> None:
    """Write `text` durably: a reader sees the old file or the new one, never a part of it."""
    tmp = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
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


def write_once(path: Path, text: str) -> bool:
    """Write `text` durably where nothing is; of several that write at once, on whatever nodes, the first one's stays.
    Returns whether it was this."""
    building = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.once")
    write_atomic(building, text)
    try:
        os.link(building, path)
    except FileExistsError:
        return False
    finally:
        building.unlink()
    return True


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
    def evaluation_dir(self) -> Path:
        """What an evaluation writes of the checkpoints that it scores: a folder step-N of each."""
        return self.path / "evaluation"

    @property
    def cancelled_file(self) -> Path:
        """Present once a person has cancelled the run: nothing restarts it, `xgen resume` removes it."""
        return self.path / "cancelled"

    @property
    def held_file(self) -> Path:
        """Present while a person holds the run (`xgen hold`): no attempt of it begins."""
        return self.path / "held"

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

    def point_file(self, number: int) -> Path:
        """The spec of a point of a sweep: that of its shard."""
        return self.path / "points" / f"{number}.yaml"

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
    try:
        with os.scandir(run_root) as entries:
            found = [(entry.name, entry.path) for entry in entries if RUN_NAME.match(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    times = {name: time for name, path in found if (time := submitted_at(path)) is not None}
    return [RunDir(run_root / name) for name in sorted(times, key=times.__getitem__)]


def submitted_at(path: str) -> float | None:
    """When the run in this folder was submitted, in seconds since the epoch; None for what is no run, or is one no
    longer."""
    try:
        return os.stat(f"{path}/spec.yaml").st_mtime  # noqa: PTH116 - of ten thousand, pathlib takes a second
    except PermissionError:
        return os.stat(path).st_mtime  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return None


def size_of_orders(run: RunDir) -> int:
    """Bytes of what people have ordered: a run that was decided goes on by an `xgen resume`, which adds to it."""
    return orders_below(str(run.path))


def orders_below(path: str) -> int:
    """The same of the run in this folder."""
    try:
        return os.stat(f"{path}/events/client.jsonl").st_size  # noqa: PTH116 - as above
    except OSError:
        return -1
