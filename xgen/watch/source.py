"""One run, read as its files grow: a view of it whenever one is asked for."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections import deque
from pathlib import Path
from typing import Any

from xgen.cluster.slurm import QueueRow
from xgen.cluster.status import QueueView, RunStatus, State
from xgen.metrics.fleet.tracked import Tracked
from xgen.plan import plans
from xgen.runs import RunDir
from xgen.spec import SpecError, load_profile, load_resolved
from xgen.watch.view import View

_TAIL = 1 << 16  # bytes: some two hundred steps
_RECENT = 32  # steps of which the rate is taken
_POINTS = 40  # of the loss, over all steps
_CURVE_EVERY = 30.0  # seconds
_LINE = 4096  # bytes that one step takes at most


class Source:
    """Raises nothing: what cannot be read is said in the view."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._tracked = Tracked(run)
        self._steps = _Steps(run.metrics_dir / "steps.jsonl")
        self._rates: dict[str, float] | None = None
        self._durables: deque[float] = deque(maxlen=2)
        self._error = ""

    def read(self, now: float) -> None:
        """What was added since."""
        try:
            self._tracked.read(now)
            self._steps.read()
            durable = self._tracked.ledger.durable_time
            if durable and durable not in self._durables:
                self._durables.append(durable)
            self._error = ""
        except OSError as error:
            self._error = error.strerror or str(error)

    def view(self, status: RunStatus, row: QueueRow | None) -> View:
        """Of all that is needed to judge it: neither the curve of the loss nor the plan, which take time."""
        tracked, ledger, steps = self._tracked, self._tracked.ledger, self._steps
        attempt = ledger.attempts[-1] if ledger.attempts else None
        state, reason = status.state, status.reason
        if ledger.phase is None and state in ("running", "pending", "lost", "unknown"):
            state, reason = _ended(tracked) or (state, reason)  # since the queue was asked
        trained = attempt and sum(attempt.phases[p] for p in ("train", "data_wait", "replay"))
        return View(
            name=self._run.name,
            state=state,
            reason=(row.reason if row is not None and state == "pending" else reason),
            phase=ledger.phase,
            trains=tracked.trains,
            attempt=attempt.number if attempt else 0,
            nodes=attempt.nodes if attempt else "",
            step=max(steps.step, attempt.last_step if attempt else 0),
            planned_steps=tracked.facts.planned_steps,
            loss=steps.loss,
            is_nan=steps.is_nan,
            losses=steps.curve,
            rate=steps.rate if ledger.phase in ("train", "replay", "checkpoint", "validation") else 0.0,
            planned_rate=(self._rates or {}).get(tracked.stage, 0.0),
            step_seconds=steps.step_seconds,
            last_step_time=steps.time,
            last_event_time=tracked.last_event,
            attempt_time=attempt.started if attempt else 0.0,
            durable_step=ledger.durable_step,
            durable_time=ledger.durable_time,
            save_interval=self._durables[1] - self._durables[0] if len(self._durables) == 2 else 0.0,
            restart_times=tuple(one.started for one in ledger.attempts[1:]),
            data_wait=attempt.phases["data_wait"] / trained if attempt and trained else 0.0,
            newest=tracked.newest,
            error=self._error,
        )

    def look_closely(self) -> None:
        """What only those on the screen need: the plan, once, and the curve of the loss, now and then."""
        if self._rates is None:
            self._rates = _planned_rates(self._run)
        try:
            self._steps.draw()
        except OSError as error:
            self._error = error.strerror or str(error)


class _Steps:
    """`metrics/steps.jsonl`: its end as it grows, and its whole curve from a few dozen places in it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset: int | None = None
        self._recent: deque[dict[str, Any]] = deque(maxlen=_RECENT)
        self._drawn = 0.0
        self.curve: tuple[float, ...] = ()

    @property
    def step(self) -> int:
        return int(self._recent[-1].get("step", 0)) if self._recent else 0

    @property
    def loss(self) -> float | None:
        return self._recent[-1].get("loss") if self._recent else None

    @property
    def is_nan(self) -> bool:
        return bool(self._recent) and self._recent[-1].get("loss") is None

    @property
    def time(self) -> float:
        return float(self._recent[-1].get("time", 0.0)) if self._recent else 0.0

    @property
    def step_seconds(self) -> float:
        return statistics.median(float(one["seconds"]) for one in self._recent) if self._recent else 0.0

    @property
    def rate(self) -> float:
        """Tokens/s over the recent steps, saves and waits included."""
        if len(self._recent) < 2:
            return 0.0
        first, last = self._recent[0], self._recent[-1]
        seconds, tokens = float(last["time"]) - float(first["time"]), int(last["tokens"]) - int(first["tokens"])
        return tokens / seconds if seconds > 0 and tokens > 0 else 0.0

    def read(self) -> None:
        """Raises OSError."""
        try:
            with self._file.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if self._offset is None or size < self._offset:  # at first, or it was made anew
                    self._offset = max(0, size - _TAIL)
                    self._recent.clear()
                    file.seek(self._offset)
                    if self._offset:
                        self._offset += len(file.readline())
                else:
                    file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    self._take(line)
        except FileNotFoundError:
            pass

    def _take(self, line: bytes) -> None:
        if (one := _record(line)) is None:
            return
        if self._recent and one["step"] <= self._recent[-1]["step"]:
            self._recent.clear()  # of the attempt before
        self._recent.append(one)

    def draw(self) -> None:
        """Raises OSError."""
        if time.monotonic() - self._drawn < _CURVE_EVERY and self.curve:
            return
        self._drawn = time.monotonic()
        try:
            with self._file.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                found = [_record(_line_at(file.fileno(), size * point // _POINTS)) for point in range(_POINTS)]
        except FileNotFoundError:
            return
        by_step = {one["step"]: one["loss"] for one in [*found, *self._recent] if one and one.get("loss") is not None}
        self.curve = tuple(loss for _, loss in sorted(by_step.items()))


def _line_at(fd: int, offset: int) -> bytes:
    """The first whole line at or after an offset."""
    block = os.pread(fd, 2 * _LINE, offset)
    if offset:
        block = block.partition(b"\n")[2]
    return block.partition(b"\n")[0]


def _record(line: bytes) -> dict[str, Any] | None:
    """None for what is no step; NaN and its like, which not all programs write as null, is read as that."""
    try:
        one = json.loads(line, parse_constant=lambda _: None)
    except ValueError:
        return None
    if not isinstance(one, dict) or not isinstance(one.get("loss"), int | float | None):
        return None
    return one if all(isinstance(one.get(key), int | float) for key in ("step", "tokens", "seconds", "time")) else None


def _ended(tracked: Tracked) -> tuple[State, str] | None:
    """What the newest events say of a run whose time is over; None: a person's cancel, while it goes on to save."""
    failed, finished = tracked.newest.get("failed"), tracked.newest.get("finished")
    if failed and not (finished and finished.time > failed.time):
        return "failed", failed.reason or ""
    return ("finished", "") if finished else None


def _planned_rates(run: RunDir) -> dict[str, float]:
    """Tokens/s of each stage as `xgen plan` has them."""
    try:
        job, profile = load_resolved(run.spec_file), load_profile(run.profile_file)
        return {one.stage: one.tokens_per_second for one in plans(job, profile)}
    except (OSError, SpecError, ValueError, ArithmeticError):
        return {}


def queue_row(view: QueueView, name: str) -> QueueRow | None:
    return view.jobs.get(name) if view.jobs else None
