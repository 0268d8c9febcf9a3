"""The attempts of a run as people read them: how long each waited, started, trained, what it lost, why it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xgen.runs.events import Event
from xgen.runs.ledger import PRODUCTIVE, Attempt, Ledger, Phase, replay
from xgen.runs.outcome import AttemptOutcome

_WORK: tuple[Phase, ...] = (*PRODUCTIVE, "data_wait")
_SAVING: tuple[Phase, ...] = ("checkpoint", "validation", "stop")
ENDS = {  # in words, of an attempt that another follows
    "preempted": "preempted", "time_limit": "came to its time limit", "crashed": "crashed", "other": "told to stop",
    "unhealthy": "given an unhealthy node",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One attempt. Times are seconds."""

    number: int
    job_id: str
    stage: str
    nodes: str
    queued: float  # before it started
    start: float
    restore: float
    train: float  # new steps, waiting for data included
    replayed: float  # steps that an attempt before had trained already
    saving: float  # checkpoints that held it up, validation, the stop
    lost_steps: int | None  # that the next attempt has to train again; None while nobody knows
    ended: str  # why; '' while it runs

    @property
    def held(self) -> float:
        """For which it had its nodes."""
        return self.start + self.restore + self.train + self.replayed + self.saving


def history(events: Sequence[Event], outcomes: Sequence[AttemptOutcome | None], now: float) -> list[Row]:
    """A row for each attempt that the events tell of. `outcomes`: of each attempt by its number, from 1 on."""
    ledger = replay(list(events))
    rows = []
    for index, attempt in enumerate(ledger.attempts):
        before = ledger.attempts[index - 1] if index else None
        after = ledger.attempts[index + 1] if index + 1 < len(ledger.attempts) else None
        phases = dict(attempt.phases)
        if after is None and ledger.phase not in (None, "queued"):  # what goes on is not booked yet
            phases[ledger.phase] += ledger.totals(now)[ledger.phase] - _booked(ledger, ledger.phase)
        outcome = outcomes[attempt.number - 1] if 0 < attempt.number <= len(outcomes) else None
        mine = [event for event in events if event.attempt == attempt.number]
        rows.append(
            Row(
                number=attempt.number,
                job_id=attempt.job_id,
                stage=attempt.stage,
                nodes=attempt.nodes,
                queued=before.phases["queued"] if before else attempt.started - ledger.began,
                start=phases["start"],
                restore=phases["restore"],
                train=sum(phases[phase] for phase in _WORK),
                replayed=phases["replay"],
                saving=sum(phases[phase] for phase in _SAVING),
                lost_steps=_lost(attempt, after, is_over=ledger.phase is None),
                ended=_ended(attempt, mine, outcome) + _excluded(mine) if after or attempt.ended else "",
            )
        )
    return rows


def _booked(ledger: Ledger, phase: Phase) -> float:
    return sum(attempt.phases[phase] for attempt in ledger.attempts)


def _lost(attempt: Attempt, after: Attempt | None, *, is_over: bool) -> int | None:
    if not attempt.last_step:  # or work without steps
        return 0
    if after is None:
        return 0 if is_over else None
    if after.first_step_time:
        return max(0, attempt.last_step - after.resumed_step)
    return 0 if attempt.durable_step == attempt.last_step else None


def _ended(attempt: Attempt, events: Sequence[Event], outcome: AttemptOutcome | None) -> str:
    """`preempted, saved step 1,240 in 31 s`."""
    status = outcome.status if outcome else "lost"
    if status in ("finished", "cancelled"):
        return status
    if status == "stage_finished":
        return f"finished stage {attempt.stage}"
    if status == "stopped":
        told = next((event.time for event in events if event.event == "signal"), None)
        saved = next(
            (e for e in events if told is not None and e.event == "checkpoint_durable" and e.time >= told), None
        )
        why = ENDS.get(attempt.end, "told to stop")
        if saved is None or told is None:
            return f"{why}, nothing saved after the signal" if attempt.last_step else why
        return f"{why}, saved step {saved.step:,} {saved.time - told:.0f} s after the signal"
    reason = outcome.reason if outcome and outcome.reason else attempt.end
    return f"{status}: {reason}" if reason and reason != status else status


def _excluded(events: Sequence[Event]) -> str:
    """`; node g17 excluded until 27 Nov 14:02`, for each."""
    found = {event.nodes: event.reason or "" for event in events if event.event == "node_excluded"}
    return "".join(f"; node {node} excluded {reason.partition(': ')[0]}" for node, reason in found.items())
