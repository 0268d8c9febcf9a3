"""One run as its files tell of it: read as they grow, kept as sums."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Literal

from xgen.cluster.status import QueueView, ShardsStatus, last_decision, run_state, shards_status
from xgen.metrics.fleet.facts import Facts, read_facts
from xgen.metrics.fleet.shards import ShardTimes
from xgen.metrics.phases import PhaseCounters
from xgen.runs import Evaluated, Event, EventName, EventReader, Ledger, Phase, RunDir
from xgen.runs.rundir import size_of_orders
from xgen.runs.users import user_name

State = Literal["queued", "running", "stopping", "finished", "failed", "cancelled", "lost"]
_DECIDED: tuple[State, ...] = ("finished", "failed", "cancelled")
ENDED = (*_DECIDED, "lost")
_STATES: Mapping[str, State] = {
    "pending": "queued", "running": "running", "finished": "finished", "failed": "failed", "cancelled": "cancelled",
    "lost": "lost",
}  # fmt: skip
# Of which the newest is kept: what went wrong, and what was done about it.
_NOTED: tuple[EventName, ...] = (
    "hang", "straggler", "unhealthy", "checkpoint_failed", "checkpoint_rejected", "guard", "failed", "finished",
    "requeued", "held", "released", "settled",
)  # fmt: skip
_CLOCKS = 10.0  # seconds that the clocks of two nodes may differ by
_SETTLED = 600.0  # seconds after which no file of a run that was decided is seen late


class Tracked:
    """A run directory. What it holds does not grow with the length of the run, but with the number of attempts."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.facts = Facts()
        self.state: State | None = None
        self.is_lost: bool | None = None  # None: who would know did not answer
        self.orders = -1  # size of what people have ordered
        self.shards: list[ShardsStatus] = []
        self.user = ""
        self.num_skipped = 0  # lines of its events that are none
        self.last_event = 0.0
        self.newest: dict[EventName, Event] = {}  # of each of `_NOTED`
        self.gpu_seconds = 0.0
        self.spent: dict[Phase, float] = {}  # as counters: none ever falls
        self.evaluated: Evaluated | None = None  # that is shown
        self._next: deque[Evaluated] = deque()
        self._spec: tuple[int, int] | None = None
        self.job_ids: frozenset[str] = frozenset()  # the newest jobs of its stages
        self._jobs_written = 0
        self._shard_times: dict[str, ShardTimes] = {}
        self._begin()
        self._counters = PhaseCounters(self.ledger)

    def _begin(self) -> None:
        self.ledger = Ledger()
        self._reader = EventReader(self.run, thinned=True)
        self._newest = (0, 0.0)
        self._decision: Event | None = None

    @property
    def trains(self) -> bool:
        """Whether it has steps: of other work there is only queue and work to tell."""
        return bool(self.facts.planned_steps or self.ledger.highest_step)

    @property
    def stage(self) -> str:
        """The one that its newest job is for; before the first, the first."""
        return (self.ledger.attempts and self.ledger.attempts[-1].stage) or self.facts.stages[0].name

    @property
    def num_gpus(self) -> int:
        """What its job asks for; of job arrays, also of one beside it, what their running shards have."""
        stage = self.facts.stage(self.stage)
        shards = sum(self.facts.stage(one.stage).num_gpus * len(one.running) for one in self.shards)
        return shards if stage.is_array else stage.num_gpus + shards

    def read(self, now: float) -> None:
        """What was added since. Raises OSError when the run cannot be read."""
        orders = size_of_orders(self.run)
        if self.state in _DECIDED and now - self.last_event > _SETTLED and orders == self.orders:
            return
        self.orders = orders
        stat, is_first = self.run.spec_file.stat(), self._spec is None
        if self._spec != (spec := (stat.st_ino, stat.st_mtime_ns)):
            self._spec, self.facts = spec, read_facts(self.run) or Facts()
            self.user = user_name(self.run.path.stat().st_uid)
        events = self._reader.new()
        if events and (events[0].attempt, events[0].time) < self._newest:
            # Another node's file was seen late. In its place it may say something else: all from the start.
            self._begin()
            self._counters.ledger = self.ledger
            events = self._reader.new()
        scored: list[Evaluated] = []
        for event in events:
            before = self.ledger.evaluated
            self.ledger.add(event)
            if self.ledger.evaluated and self.ledger.evaluated is not before:
                scored.append(self.ledger.evaluated)
            if event.event in _NOTED:
                self.newest[event.event] = event
            self.last_event = max(self.last_event, event.time)
            self._newest = max(self._newest, (event.attempt, event.time))
        self._decision = last_decision(events, self._decision)
        self._take_scores(scored[-1:] if is_first else scored)
        self.num_skipped = self._reader.num_skipped
        if events and self.state in ENDED:
            self.state = None  # to be asked again
        if self.state not in _DECIDED:
            self._read_jobs()

    def _take_scores(self, scored: list[Evaluated]) -> None:
        """Each is shown for a poll at least, so that it is scraped; of what was there before the first, the newest."""
        known = self._next[-1] if self._next else self.evaluated
        after = (known.step, known.time) if known else (-1, 0.0)
        self._next.extend(one for one in scored if (one.step, one.time) > after)

    def _read_jobs(self) -> None:
        folder = self.run.job_file(0).parent
        try:
            written = folder.stat().st_mtime_ns
            if written != self._jobs_written:
                lines = [file.read_text(errors="replace").strip() for file in folder.iterdir() if file.name.isdecimal()]
                self._jobs_written = written
                self.job_ids = frozenset(number for line in lines for number in line.split(":"))
        except FileNotFoundError:
            pass  # the local executor's

    def judge(self, view: QueueView, asked: float, now: float) -> None:
        """State, shards and time until now, from a queue that was asked at that time. Raises OSError."""
        if self._next:
            self.evaluated = self._next.popleft()
        if self.state not in _DECIDED:
            if view.jobs is not None and self.run.name not in view.jobs and asked < self.last_event + _CLOCKS:
                view = QueueView(None)  # a job that was submitted since
            self._decide(view)
            if self.facts.arrays:
                self._judge_shards(shards_status(self.run, self.facts.arrays, view))
        at = self._certain(now)
        self.spent = self._counters.read(at)
        self.gpu_seconds = max(self.gpu_seconds, self._held(at))

    def _decide(self, view: QueueView) -> None:
        said, _ = run_state(self.run, self._decision, view)
        if said == "unknown" and self.state == "lost":
            return  # nothing has happened since
        self.is_lost = None if said == "unknown" else said == "lost"
        phase = self.ledger.phase
        state = _STATES.get(said) or ("cancelled" if phase is None else "queued" if phase == "queued" else "running")
        # A person's cancel ends the ledger's time at once, and the job may go on to save.
        self.state = "stopping" if state == "running" and phase in ("stop", None) else state

    def _judge_shards(self, found: list[ShardsStatus]) -> None:
        self.shards = found
        for one in found:
            if self.facts.stage(one.stage).num_gpus:
                self._shard_times.setdefault(one.stage, ShardTimes(self.run, one.stage)).read(one)

    def _certain(self, now: float) -> float:
        """Up to when it is known where the time went: of a run that trains, and of a lost one, up to the last event.
        What a step waited for data is known after it, and whether a step or a save hangs or died, too. The silence
        that a lost run ended with is no time, and an exporter that starts after it must not count less."""
        known = self.trains and self.ledger.phase != "queued"
        return self.last_event if known or self.state == "lost" else now

    def totals(self, now: float) -> dict[Phase, float]:
        """Seconds by phase as the ledger has them."""
        return self.ledger.totals(self._certain(now))

    def _held(self, at: float) -> float:
        """Seconds of all GPUs, from the start of each attempt to its end."""
        total = sum(self.facts.stage(name).num_gpus * one.seconds(at) for name, one in self._shard_times.items())
        for attempt in self.ledger.attempts:
            stage = self.facts.stage(attempt.stage)
            gpus = 0 if stage.is_array else stage.num_gpus
            total += gpus * (sum(attempt.phases.values()) - attempt.phases["queued"])
        if self.ledger.attempts and self.ledger.phase not in (None, "queued"):
            total += gpus * max(0.0, at - self.last_event)
        return total
