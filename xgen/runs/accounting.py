"""What the attempts of a run held their nodes for, and how much of it was lost to what: sums over its events.

Seconds of wall time; whoever knows what a job holds makes GPU-hours of them. Of each attempt the phases sum to the time
from its start to its end, and what was useful and what was lost do too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from xgen.runs.events import Event
from xgen.runs.ledger import PRODUCTIVE, RESTART_REASONS, Ledger, Phase, RestartReason

# start: of the first attempt, or the first of a stage. A reason of a restart: start, restore and replay of the attempt
# that followed. unsaved: steps after the last checkpoint of a run that ended without another. Work without steps that
# ended badly is lost as a whole: to the crash, or as unsaved when a person cancelled it.
Cause = Literal["start", "save", "data_wait", "preempted", "time_limit", "crashed", "lost", "other", "hang", "unsaved"]
CAUSES: tuple[Cause, ...] = get_args(Cause)
_USEFUL: tuple[Phase, ...] = (*PRODUCTIVE, "validation")
_AGAIN: tuple[Phase, ...] = ("start", "restore", "replay")
_SAVING: tuple[Phase, ...] = ("checkpoint", "stop")
_BAD_ENDS: Mapping[str, Cause] = {"crashed": "crashed", "failed": "crashed", "lost": "lost", "cancelled": "unsaved"}


@dataclass(frozen=True)
class Use:
    """One attempt, within the time that was asked for."""

    attempt: int
    job_id: str
    stage: str
    started: float  # seconds since the epoch
    ended: float
    queued: float  # before it started: nothing was held
    phases: dict[Phase, float]  # while it held its nodes
    lost: dict[Cause, float]

    @property
    def held(self) -> float:
        return sum(self.phases.values())

    @property
    def useful(self) -> float:
        return self.held - sum(self.lost.values())


@dataclass
class _Seen:
    """Of an attempt, beside what the ledger keeps of it."""

    cause: RestartReason | None  # why it was started; None: nothing had ended
    end: str = ""  # the newest word on how it ended
    saved: float = 0.0  # productive seconds up to its newest durable checkpoint
    stepped: float = 0.0  # when it last did a step
    hung: float = 0.0  # seconds


def account(events: Iterable[Event], *, trains: bool, since: float, until: float, is_over: bool) -> list[Use]:
    """A `Use` for each attempt that was under way between `since` and `until`.

    `until`: now, for a run that goes on; its last sign of life, for one that is lost. `is_over`: nothing follows,
    whether or not its events say so.
    """
    ledger, seen = Ledger(), list[_Seen]()
    before: list[dict[Phase, float]] | None = None  # what the attempts had had by `since`
    for event in events:
        if before is None and event.time > since:
            before = _phases(ledger, since)
        restarts, number = dict(ledger.restarts), len(ledger.attempts)
        ledger.add(event)
        if len(ledger.attempts) > number:
            if seen and not seen[-1].end:
                seen[-1].end = ledger.attempts[-2].end
            seen.append(_Seen(next((r for r in RESTART_REASONS if ledger.restarts[r] > restarts[r]), None)))
        elif seen:
            _note(seen[-1], event, ledger)
    is_over = is_over or ledger.is_over
    if seen and not seen[-1].end and is_over:
        seen[-1].end = "lost"
    had = before if before is not None else _phases(ledger, since)
    spent = _phases(ledger, until)
    for phases, earlier in zip(spent, had, strict=False):
        phases.update({phase: max(0.0, seconds - earlier[phase]) for phase, seconds in phases.items()})
    uses = []
    for index, (attempt, facts) in enumerate(zip(ledger.attempts, seen, strict=True)):
        ended = attempt.ended or until
        if ended <= since:
            continue
        held: dict[Phase, float] = {
            phase: seconds for phase, seconds in spent[index].items() if phase != "queued" and seconds > 0
        }
        goes_on = index + 1 < len(seen) or not is_over
        uses.append(
            Use(
                attempt=attempt.number,
                job_id=attempt.job_id,
                stage=attempt.stage,
                started=max(attempt.started, since),
                ended=ended,
                queued=spent[index - 1]["queued"] if index else max(0.0, attempt.started - max(since, ledger.began)),
                phases=held,
                lost=_lost(held, facts, goes_on) if trains else _lost_work(held, facts),
            )
        )
    return uses


def _phases(ledger: Ledger, at: float) -> list[dict[Phase, float]]:
    """Of each attempt, with what is not booked yet."""
    found = [dict(attempt.phases) for attempt in ledger.attempts]
    if found and ledger.phase is not None:
        phase = ledger.phase
        booked = ledger.booked(phase)
        found[-1][phase] += max(0.0, ledger.totals(at)[phase] - booked)
    return found


def _note(seen: _Seen, event: Event, ledger: Ledger) -> None:
    match event.event:
        case "first_step" | "progress":
            seen.stepped = event.time
        case "checkpoint_durable":
            seen.saved = sum(ledger.attempts[-1].phases[phase] for phase in PRODUCTIVE)
        case "hang" if not seen.hung:
            seen.hung = event.seconds or (event.time - seen.stepped if seen.stepped else 0.0)
        case "finished" | "stage_finished" | "failed" | "cancelled":
            seen.end = event.event
        case "requeued":
            seen.end = event.reason or "other"
        case _:
            pass


def _lost(held: Mapping[Phase, float], seen: _Seen, goes_on: bool) -> dict[Cause, float]:
    lost: dict[Cause, float] = dict.fromkeys(CAUSES, 0.0)
    lost[seen.cause or "start"] += _sum(held, _AGAIN)
    lost["save"] += _sum(held, _SAVING)
    lost["data_wait"] += held.get("data_wait", 0.0)
    useful = _sum(held, _USEFUL)
    lost["hang"] = min(seen.hung, useful)
    if not goes_on and seen.end in _BAD_ENDS:
        lost["unsaved"] = max(0.0, min(_sum(held, PRODUCTIVE) - seen.saved, useful) - lost["hang"])
    return {cause: seconds for cause, seconds in lost.items() if seconds > 0}


def _lost_work(held: Mapping[Phase, float], seen: _Seen) -> dict[Cause, float]:
    if cause := _BAD_ENDS.get(seen.end):
        return {cause: sum(held.values())}
    saving = _sum(held, _SAVING)
    return {"save": saving} if saving > 0 else {}


def _sum(held: Mapping[Phase, float], phases: Iterable[Phase]) -> float:
    return sum(held.get(phase, 0.0) for phase in phases)
