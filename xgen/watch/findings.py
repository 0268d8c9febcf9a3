"""The one thing that is wrong with a run, if anything is. Pure: a view and a clock in, a finding out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from xgen.cluster.waiting import explain
from xgen.drawing.wording import duration
from xgen.runs import Event, EventName
from xgen.watch.view import View


class Level(IntEnum):
    """How bad it is."""

    FINE = 0
    WAITS = 1  # by itself
    ODD = 2  # worth a look
    WRONG = 3  # somebody has to do something


@dataclass(frozen=True)
class Finding:
    level: Level
    text: str = ""


_SILENCE = 120.0  # seconds without a step before anybody worries, however short the steps are
_STEPS = 20.0  # steps for which it may be silent
_START = 900.0  # seconds in which an attempt should have done its first step
_RESTARTS, _STORM = 3, 3600.0  # so many restarts within so many seconds
_LATE_SAVES, _LATE = 3.0, 600.0  # intervals, and seconds at least, without a checkpoint
_SLOW = 0.7  # of the planned rate
_DATA_WAIT = 0.2  # of the training


def find(view: View, now: float) -> Finding:
    """The worst; of equals the first rule's."""
    return max(
        (one for rule in _RULES for one in rule(view, now)), key=lambda one: one.level, default=Finding(Level.FINE)
    )


def _ended(view: View, now: float) -> Iterator[Finding]:
    del now
    match view.state:
        case "failed":
            yield Finding(Level.WRONG, f"failed: {view.reason or 'it does not say why'}")
        case "lost":
            yield Finding(Level.WRONG, f"lost: {view.reason or 'nobody decided'}")
        case "blocked":
            yield Finding(Level.ODD, view.reason or "what it waits for has failed")
        case "unreadable":
            yield Finding(Level.ODD, view.error or view.reason or "you may not read it")
        case "unknown":
            yield Finding(Level.ODD, view.reason or "the scheduler did not answer")
        case _:
            pass


def _waits(view: View, now: float) -> Iterator[Finding]:
    if view.state != "pending":
        return
    if "held" in view.reason.lower() or _is_after(view, "held", "released"):
        yield Finding(Level.ODD, "on hold: xgen release lets it go on")
        return
    if view.reason[:1].islower():  # not SLURM's: a pipeline's or the local executor's own words
        yield Finding(Level.WAITS, f"waits: {view.reason}")
        return
    known = view.reason not in ("", "None")
    waiting = explain(view.reason)
    # What nobody has to do anything about begins with this word.
    level = Level.WAITS if not known or waiting.fix.startswith("nothing") else Level.ODD
    since = f" for {duration(now - view.last_event_time)}" if view.last_event_time else ""
    yield Finding(level, f"waits{since}: {waiting.meaning if known else 'no reason given yet'}")


def _hangs(view: View, now: float) -> Iterator[Finding]:
    if view.state != "running" or not view.trains:
        return
    if (hang := _of_attempt(view, "hang")) and hang.time > view.last_step_time:
        yield Finding(Level.WRONG, f"no progress: {hang.reason or 'its ranks hang'}")
    elif view.phase in ("train", "replay") and view.last_step_time:
        silent = now - max(view.last_step_time, view.last_event_time)
        if silent > max(_SILENCE, _STEPS * view.step_seconds):
            yield Finding(Level.WRONG, f"no step for {duration(silent)}")
    elif view.phase in ("start", "restore") and view.attempt_time and now - view.attempt_time > _START:
        yield Finding(Level.ODD, f"no step yet, {duration(now - view.attempt_time)} after its start")


def _diverges(view: View, now: float) -> Iterator[Finding]:
    del now
    if view.state == "running" and view.is_nan:
        yield Finding(Level.WRONG, f"the loss of step {view.step:,} is no number")
    elif (guard := _of_attempt(view, "guard")) and view.state == "running":
        yield Finding(
            Level.ODD, f"the guard at step {guard.step or 0:,}: {guard.action or 'spoke'}, {guard.reason or ''}"
        )


def _restarts(view: View, now: float) -> Iterator[Finding]:
    recent = sum(now - time < _STORM for time in view.restart_times)
    if view.state in ("running", "pending") and recent >= _RESTARTS:
        last = view.newest.get("requeued")
        yield Finding(Level.ODD, f"restarted {recent} times within an hour{f', last: {last.reason}' if last else ''}")


def _saves(view: View, now: float) -> Iterator[Finding]:
    if view.state != "running":
        return
    if (failed := _of_attempt(view, "checkpoint_failed")) and failed.time > view.durable_time:
        yield Finding(Level.ODD, f"the save of step {failed.step or 0:,} failed: {failed.reason or ''}")
    age, every = now - view.durable_time, view.save_interval
    if view.durable_time and view.phase == "train" and every and age > max(_LATE, _LATE_SAVES * every):
        yield Finding(Level.ODD, f"no checkpoint for {duration(age)}, one came every {duration(every)}")


def _nodes(view: View, now: float) -> Iterator[Finding]:
    if view.state != "running":
        return
    if unhealthy := _of_attempt(view, "unhealthy"):
        yield Finding(Level.ODD, f"{unhealthy.nodes or 'a node'} is not healthy: {unhealthy.reason or ''}")
    if (slow := _of_attempt(view, "straggler")) and now - slow.time < _STORM:
        yield Finding(Level.ODD, slow.reason or "a rank is slow")


def _slow(view: View, now: float) -> Iterator[Finding]:
    del now
    if view.state != "running" or view.phase != "train" or not view.rate:
        return
    if view.planned_rate and view.rate < _SLOW * view.planned_rate:
        yield Finding(Level.ODD, f"{view.rate / view.planned_rate:.0%} of the tokens/s that the plan has")
    if view.data_wait > _DATA_WAIT:
        yield Finding(Level.ODD, f"waits for data {view.data_wait:.0%} of the time")


_RULES: tuple[Callable[[View, float], Iterator[Finding]], ...] = (
    _ended, _waits, _hangs, _diverges, _saves, _nodes, _restarts, _slow,
)  # fmt: skip


def _of_attempt(view: View, name: EventName) -> Event | None:
    event = view.newest.get(name)
    return event if event is not None and event.attempt == view.attempt else None


def _is_after(view: View, name: EventName, other: EventName) -> bool:
    one, two = view.newest.get(name), view.newest.get(other)
    return one is not None and (two is None or one.time > two.time)
