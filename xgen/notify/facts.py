"""What is worth a message: facts of a run, from its events. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xgen.runs import Event
from xgen.spec.notify import Occasion


@dataclass(frozen=True)
class Fact:
    """`key` is its name in the run directory: the same fact has the same key, whoever sees it."""

    key: str
    occasion: Occasion
    state: str  # started, preempted, crashed, failed, lost, settled, hung, finished, cancelled
    time: float  # seconds since the epoch
    attempt: int
    job_id: str
    step: int  # 0 before the first
    durable_step: int
    reason: str = ""
    nodes: str = ""


class Facts:
    """Takes events as they come; `found` are the facts, in order of time. `reason_of`: why an attempt ended, as its
    outcome says."""

    def __init__(self, reason_of: Callable[[int], str]) -> None:
        self._reason_of = reason_of
        self._found: dict[str, Fact] = {}
        self.attempt = self.step = self.durable_step = 0
        self.job_id = ""

    @property
    def found(self) -> list[Fact]:
        return list(self._found.values())

    def add(self, event: Event) -> None:
        self.attempt, self.job_id = event.attempt or self.attempt, event.job_id or self.job_id
        if event.step is not None and event.event in ("first_step", "progress", "checkpoint_durable", "restore_end"):
            self.step = event.step
        if event.step is not None and event.event in ("checkpoint_durable", "rolled_back"):
            self.durable_step = event.step
        if said := _said(event):
            occasion, state = said
            reason = (self._reason_of(self.attempt) if state == "crashed" else "") or event.reason or ""
            fact = self._fact(occasion, state, event.time, reason, event.nodes or "")
            self._found.setdefault(fact.key, fact)

    def lost(self, reason: str, now: float) -> Fact:
        """No event says this: the scheduler has no job of the run, and nobody decided."""
        return self._fact("failure", "lost", now, reason)

    def _fact(self, occasion: Occasion, state: str, time: float, reason: str, nodes: str = "") -> Fact:
        key = f"{state}-{self.attempt}"
        return Fact(key, occasion, state, time, self.attempt, self.job_id, self.step, self.durable_step, reason, nodes)


def _said(event: Event) -> tuple[Occasion, str] | None:
    match event.event:
        case "started" if event.attempt == 1:
            return "start", "started"
        case "requeued" if event.reason == "preempted":
            return "preemption", "preempted"
        case "requeued" if event.reason in ("crashed", "lost"):
            return "failure", "crashed"
        case "settled":
            return "failure", "settled"
        case "hang":
            return "hang", "hung"
        case "failed":
            return "failure", "failed"
        case "finished":
            return "finish", "finished"
        case "cancelled" if event.writer == "host":  # the client's is a wish until the job is gone
            return "finish", "cancelled"
        case _:
            return None
