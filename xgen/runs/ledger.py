"""Where the time of a run went: one state machine over its events, used by CLI, exporter and reports alike.

Exactly one phase holds at any moment, so the phases sum to wall time since submission. Effective training
time ratio (ETTR) as in arXiv 2410.21680: productive time over wall time of the whole run, queueing included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from xgen.runs.events import Event

Phase = Literal[
    "queued",
    "start",
    "restore",
    "train",
    "generate",
    "verify",
    "data_wait",
    "replay",
    "validation",
    "checkpoint",
    "stop",
]
PHASES: tuple[Phase, ...] = get_args(Phase)
PRODUCTIVE: tuple[Phase, ...] = ("train", "generate", "verify")  # online RL waits for its answers as it trains on them
Wait = Literal["data_wait", "generate", "verify"]  # phases that are told of after the fact, as parts of steps
WAITS: tuple[Wait, ...] = get_args(Wait)
RestartReason = Literal["preempted", "time_limit", "crashed", "lost", "other"]
RESTART_REASONS: tuple[RestartReason, ...] = get_args(RestartReason)
GuardAction = Literal["record", "skip", "rollback", "stop"]
GUARD_ACTIONS: tuple[GuardAction, ...] = get_args(GuardAction)


@dataclass
class Attempt:
    """What the events say of one attempt. Times are seconds since the epoch, 0 when it did not happen."""

    number: int
    job_id: str
    nodes: str = ""
    started: float = 0.0
    first_step_time: float = 0.0
    ended: float = 0.0
    resumed_step: int = 0  # step of the checkpoint it began from, 0 for a fresh start
    last_step: int = 0
    durable_step: int = 0
    end: str = ""  # why it ended, '' while it runs
    phases: dict[Phase, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    startup: dict[str, float] = field(default_factory=dict)  # rank 0's seconds by part, up to its first step
    stage: str = ""  # name of its stage, '' for work without stages


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found of one checkpoint; `step` is 0 for a Hugging Face folder."""

    time: float
    step: int
    checkpoint: str  # run@step, or the folder
    scores: Mapping[str, float]  # by suite/task/length

    @property
    def target(self) -> str:
        """The run, or the folder."""
        return self.checkpoint.removesuffix(f"@{self.step}")


class Ledger:
    """Replays events in order of time; the same events always give the same totals."""

    def __init__(self) -> None:
        self.phase: Phase | None = None  # None before submission and after the end
        self.began = 0.0
        self.attempts: list[Attempt] = []
        self.restarts: dict[RestartReason, int] = dict.fromkeys(RESTART_REASONS, 0)
        self.highest_step = 0
        self.lost_steps = 0  # that had to be done again, after a restart or a rollback, as far as they were told of
        self.durable_step = 0
        self.durable_time = 0.0
        self._booked: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self._until = 0.0  # time up to which everything is booked
        self._position = 0  # step that the weights are at
        self._replay_until = 0  # steps up to this one were trained before
        self._waited: dict[Wait, float] = dict.fromkeys(WAITS, 0.0)  # of the current attempt, as far as booked
        self._before_checkpoint: Phase = "train"
        self._before_validation: Phase = "train"
        self._saving_step: int | None = None  # of the save that the training stands still for
        self._decided = True  # about the newest attempt: it has ended
        self._cancelled = False  # a person's word, which may come while the attempt goes on to save
        self._restart_reason: RestartReason | None = "lost"  # None: the next attempt is the next stage's first
        self.guarded: dict[str, int] = {}  # what the guard did, and how often
        self.evaluated: Evaluated | None = None  # of the highest step: what came before is in the run directory

    def add(self, event: Event) -> None:
        """Take one event; events must come in the order in which `read_events` returns them."""
        if not self.began:
            self.began = self._until = _held_since(event)
        if event.event == "started":
            self._start_attempt(event)
            return
        if event.event == "settled":
            self._end_lost_attempt()
            return
        if event.event == "rolled_back":  # a person's act while nothing runs: it is no time of the run's
            self.durable_step = event.step or 0
            return
        self._book(event.time)
        attempt = self.attempts[-1] if self.attempts else None
        if event.step is not None and event.event in ("first_step", "progress", "checkpoint_durable"):
            self.highest_step = max(self.highest_step, event.step)
            if attempt:
                attempt.last_step = max(attempt.last_step, event.step)
        self._move_position(event)
        self._move_waits(event)
        self._transition(event, attempt)
        if event.event == "evaluated":
            self._evaluate(event)
        if self._cancelled:
            self.phase = None

    def totals(self, now: float) -> dict[Phase, float]:
        """Seconds per phase from submission until `now` (or the end of the run, if that came first)."""
        totals = dict(self._booked)
        if self.phase is not None:
            totals[self.phase] += max(0.0, now - self._until)
        return totals

    @property
    def is_over(self) -> bool:
        """Whether nothing more follows, as far as the events tell."""
        return self.phase is None

    def booked(self, phase: Phase) -> float:
        """Seconds of a phase up to the newest event."""
        return self._booked[phase]

    def ettr(self, now: float) -> float:
        """Effective training time ratio, 0..1; 0 before any time has passed."""
        totals = self.totals(now)
        wall = sum(totals.values())
        return sum(totals[phase] for phase in PRODUCTIVE) / wall if wall > 0 else 0.0

    def _start_attempt(self, event: Event) -> None:
        self._end_lost_attempt()
        self._cancelled = False
        began = min(event.time, max(_held_since(event), self._until))  # what is booked stays so
        self._book(began)
        if self.attempts and self._restart_reason:
            self.restarts[self._restart_reason] += 1
        attempt = Attempt(event.attempt, event.job_id, event.nodes or "", began, stage=event.stage or "")
        self.attempts.append(attempt)
        self.phase, self._decided = "start", False
        self._book(event.time)
        self._waited = dict.fromkeys(WAITS, 0.0)
        self._replay_until, self._restart_reason = self.highest_step, "lost"

    def _end_lost_attempt(self) -> None:
        """One that died without a word (node lost, batch script killed): what came after its last sign of life was no
        work."""
        if self._decided:
            return
        self.phase, self._decided, self._restart_reason = "queued", True, "lost"
        if self.attempts:
            self.attempts[-1].end = self.attempts[-1].end or "lost"
            self.attempts[-1].ended = self._until

    def _transition(self, event: Event, attempt: Attempt | None) -> None:
        match event.event:
            case "submitted" | "queued":
                self.phase = self.phase or "queued"
                self._cancelled = False
            case "restore_begin":
                self.phase = "restore"
            case "restore_end":
                self.phase = "start"
                if attempt and event.step and not attempt.first_step_time:
                    attempt.resumed_step = attempt.durable_step = self.durable_step = event.step
            case "first_step":
                self.phase = self._stepping(event.step)
                if attempt and not attempt.first_step_time:
                    attempt.first_step_time = event.time
                    attempt.startup = event.startup or {}
            case "guard":
                action = event.action or ""
                self.guarded[action] = self.guarded.get(action, 0) + 1
                if action == "rollback":  # what was trained since the checkpoint is trained again
                    self.highest_step = max(self.highest_step, event.step or 0)
                    self._replay_until = self.highest_step
            case "progress":
                if self.phase in ("train", "replay"):
                    self.phase = self._stepping(event.step)
            case "checkpoint_begin":
                if self.phase != "checkpoint":
                    self._before_checkpoint = self.phase or "train"
                self.phase, self._saving_step = "checkpoint", event.step
            case "checkpoint_staged" | "checkpoint_durable" | "checkpoint_failed":
                # A save that was staged is written while the training goes on: its end is no change of phase.
                if self.phase == "checkpoint" and event.step == self._saving_step:
                    self.phase = self._before_checkpoint
                if event.event == "checkpoint_durable" and event.step is not None:
                    self.durable_step, self.durable_time = event.step, event.time
                    if attempt:
                        attempt.durable_step = event.step
            case "validation_begin" | "validation_end":
                self._validate(begins=event.event == "validation_begin")
            case "stopping" | "exited":  # the batch script holds the nodes until it has decided what follows
                self.phase = "stop"
            case "requeued":
                self._end_attempt(event, attempt)
            case "stage_finished":
                self._end_attempt(event, attempt)
                self._restart_reason = None
            case "finished" | "failed" | "cancelled":
                self._end_attempt(event, attempt)
                self.phase = None
                self._cancelled = event.event == "cancelled"
            case _:
                pass

    def _evaluate(self, event: Event) -> None:
        step = event.step or 0
        if self.evaluated is None or step >= self.evaluated.step:  # of the same one: with samples that were added
            self.evaluated = Evaluated(event.time, step, event.checkpoint or "", event.scores or {})

    def _validate(self, begins: bool) -> None:
        if begins:
            self._before_validation, self.phase = self.phase or "train", "validation"
        elif self.phase == "validation":
            self.phase = self._before_validation

    def _end_attempt(self, event: Event, attempt: Attempt | None) -> None:
        self.phase, self._decided = "queued", True
        if attempt and not attempt.ended:
            attempt.ended = event.time
        if attempt and event.reason:
            attempt.end = event.reason
        if event.event == "requeued":
            self._restart_reason = next((r for r in RESTART_REASONS if r == event.reason), "other")

    def _stepping(self, step: int | None) -> Phase:
        return "replay" if step is not None and step < self._replay_until else "train"

    def _book(self, time: float) -> None:
        if self.phase is not None and time > self._until:
            self._add(self.phase, time - self._until)
        self._until = max(self._until, time)

    def _move_position(self, event: Event) -> None:
        step = event.step or 0
        if event.event == "restore_end":
            self.lost_steps += max(0, self._position - step)
            self._position = step
        elif event.event in ("first_step", "progress", "guard"):
            self._position = max(self._position, step)

    def _move_waits(self, event: Event) -> None:
        if not self.attempts:
            return
        # Never more than the phase holds: a phase cannot have a negative duration. What is done again stays replay.
        source: Phase = "replay" if self.phase == "replay" else "train"
        told_of: dict[Wait, float | None] = {
            "data_wait": event.data_wait,
            "generate": event.generate,
            "verify": event.verify,
        }
        for wait, told in told_of.items():
            if told is None or told <= self._waited[wait]:
                continue
            if wait != "data_wait" and source == "replay":
                self._waited[wait] = told
                continue
            moved = min(told - self._waited[wait], self.attempts[-1].phases[source])
            self._waited[wait] += moved  # the rest with the next: told in two parts it comes to the same
            self._add(source, -moved)
            self._add(wait, moved)

    def _add(self, phase: Phase, seconds: float) -> None:
        self._booked[phase] += seconds
        if self.attempts:
            self.attempts[-1].phases[phase] += seconds


def _held_since(event: Event) -> float:
    """SLURM counts a start from the allocation, the prolog included: before the batch script can say `started`."""
    return event.time if event.allocated is None else min(event.allocated, event.time)


def replay(events: list[Event]) -> Ledger:
    """The ledger of these events, which `read_events` has put in order."""
    ledger = Ledger()
    for event in events:
        ledger.add(event)
    return ledger
