"""Rewards of answers, side by side with whatever else goes on."""

from __future__ import annotations

import json
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from xgen.posttrain.rewards.jail import Bounds, Isolation
from xgen.posttrain.rewards.jobs import Job, job_of
from xgen.posttrain.rewards.link import ServerLink
from xgen.posttrain.rewards.task import BUCKETS, KindStats, Stats, Task, Verdict
from xgen.posttrain.rewards.verify.reply import Reply
from xgen.posttrain.rewards.wire import ClosedError
from xgen.posttrain.rewards.worker import PROFILES
from xgen.spec.rewards import Reward, Verification

_KEPT = 1 << 16  # replies
_MOST_RESTARTS = 5  # of the server without a reply in between


@dataclass
class _Waiting:
    """A task of which some parts are open."""

    task: Task
    names: tuple[str, ...]
    replies: dict[str, Reply] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class _Open:
    """A job that a worker has, for all that wait for its reply."""

    number: int
    kind: str
    job: Job
    waiting: list[tuple[int, str]]
    tries: int = 1


class Verifiers:
    """Judges answers in processes of their own. Not to be shared by threads.

    Every task gets one verdict, whatever is killed meanwhile. `isolation` says what holds answers back on this
    machine; print it. Raises StartError.
    """

    def __init__(self, spec: Verification | None = None) -> None:
        self._spec = spec or Verification()
        self._bounds = Bounds(**self._spec.limits.model_dump())
        self._link = ServerLink(self._bounds, self._spec.workers)
        self.isolation: Isolation = self._link.isolation
        self._next_task = self._next_job = self._restarts = self._restarts_in_a_row = 0
        self._tasks: dict[int, _Waiting] = {}
        self._jobs: dict[int, _Open] = {}
        self._by_key: dict[bytes, _Open] = {}
        self._done: dict[int, Verdict] = {}
        self._kept: OrderedDict[bytes, Reply] = OrderedDict()
        self._counts: dict[str, _Counts] = {}

    def judge(self, tasks: Sequence[Task]) -> list[Verdict]:
        """In the order of the tasks. Verdicts of what `submit` asked for stay for `ready`."""
        numbers = [self._take(task) for task in tasks]
        self._push()
        for number in numbers:
            while number in self._tasks:
                self._hear(60.0)
        return [self._done.pop(number) for number in numbers]

    def submit(self, task: Task) -> int:
        """Begins a verdict; its number."""
        number = self._take(task)
        self._push()
        return number

    def ready(self, timeout: float = 0.0) -> list[tuple[int, Verdict]]:
        """(number, verdict) of all that are there, in the order of their end; waits for the first so many seconds."""
        until = time.monotonic() + timeout
        while True:
            left = until - time.monotonic()
            if self._tasks:
                self._hear(0.0 if self._done else max(left, 0.0))
            if self._done or left <= 0 or not self._tasks:
                done, self._done = self._done, {}
                return list(done.items())

    def stats(self) -> Stats:
        kinds = {kind: counts.snapshot() for kind, counts in self._counts.items()}
        return Stats(kinds, self._restarts, len(self._tasks))

    def close(self) -> None:
        """Ends all processes. What waits has no verdict."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # what goes and comes

    def _take(self, task: Task) -> int:
        number = self._next_task
        self._next_task += 1
        waiting = _Waiting(task, _names(task.rewards))
        self._tasks[number] = waiting
        for name, reward in zip(waiting.names, task.rewards, strict=True):
            asked = job_of(reward, task, self._spec.limits.seconds)
            if isinstance(asked, Reply):
                self._count(reward.kind, asked, None)
                waiting.replies[name] = asked
            elif (kept := self._kept.get(asked.key)) is not None:
                self._kept.move_to_end(asked.key)
                self._count(reward.kind, kept, None)
                waiting.replies[name] = kept
            elif (same := self._by_key.get(asked.key)) is not None:
                same.waiting.append((number, name))
            else:
                self._begin(_Open(0, reward.kind, asked, [(number, name)]))
        self._finish(number)
        return number

    def _begin(self, asked: _Open) -> None:
        self._next_job += 1
        asked.number = self._next_job << 3 | PROFILES.index(asked.job.profile)
        self._jobs[asked.number] = self._by_key[asked.job.key] = asked
        self._link.put(asked.number, asked.job.body)

    def _push(self) -> None:
        try:
            self._link.push()
        except ClosedError:
            self._restart()

    def _hear(self, seconds: float) -> None:
        try:
            replies = self._link.receive(seconds)
        except ClosedError:
            self._restart()
            return
        for number, body in replies:
            self._restarts_in_a_row = 0
            asked = self._jobs.pop(number, None)
            if asked is None:
                continue  # of before a restart
            del self._by_key[asked.job.key]
            self._settle(asked, json.loads(body))

    def _settle(self, asked: _Open, said: dict[str, object]) -> None:
        seconds = float(said.pop("seconds"))  # type: ignore[arg-type]
        reply = Reply(**said)  # type: ignore[arg-type]
        is_chance = reply.failure == "crashed" or (reply.failure is not None and asked.kind == "model")
        if is_chance and asked.tries <= self._spec.retries:
            self._counts_of(asked.kind).retries += 1
            self._begin(_Open(0, asked.kind, asked.job, asked.waiting, asked.tries + 1))
            self._push()
            return
        if reply.failure is None:
            self._kept[asked.job.key] = reply
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        for place, (number, name) in enumerate(asked.waiting):
            self._count(asked.kind, reply, None if place else seconds)
            self._tasks[number].replies[name] = reply
            self._tasks[number].seconds += 0.0 if place else seconds
            self._finish(number)

    def _finish(self, number: int) -> None:
        waiting = self._tasks[number]
        if len(waiting.replies) == len(waiting.names):
            del self._tasks[number]
            self._done[number] = _verdict(waiting)

    def _restart(self) -> None:
        """A new server, which is asked again for all that is open. Raises StartError when the next ones die too."""
        self._link.close()
        self._restarts += 1
        self._restarts_in_a_row += 1
        if self._restarts_in_a_row > _MOST_RESTARTS:
            raise RuntimeError(f"the verifiers' process died {_MOST_RESTARTS} times; what it said is above")
        self._link = ServerLink(self._bounds, self._spec.workers)
        for asked in self._jobs.values():
            self._link.put(asked.number, asked.job.body)
        self._push()

    # what is counted

    def _counts_of(self, kind: str) -> _Counts:
        return self._counts.setdefault(kind, _Counts())

    def _count(self, kind: str, reply: Reply, seconds: float | None) -> None:
        """`seconds`: None where nothing was worked on."""
        counts = self._counts_of(kind)
        if reply.failure is not None:
            counts.failures[reply.failure] += 1
        else:
            counts.verdicts += 1
            counts.cached += seconds is None
        if reply.fault is not None:
            counts.faults[reply.fault] += 1
        if seconds is not None:
            counts.seconds += seconds
            counts.buckets[sum(seconds > bound for bound in BUCKETS)] += 1


@dataclass
class _Counts:
    verdicts: int = 0
    cached: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))

    def snapshot(self) -> KindStats:
        return KindStats(
            self.verdicts, self.cached, dict(self.failures), dict(self.faults), self.retries, self.seconds,
            tuple(self.buckets),
        )  # fmt: skip


def _names(rewards: Sequence[Reward]) -> tuple[str, ...]:
    """Kinds; from the second of a kind on with its number."""
    seen: Counter[str] = Counter()
    names = []
    for reward in rewards:
        seen[reward.kind] += 1
        names.append(reward.kind if seen[reward.kind] == 1 else f"{reward.kind}#{seen[reward.kind]}")
    return tuple(names)


def _verdict(waiting: _Waiting) -> Verdict:
    replies = {name: waiting.replies[name] for name in waiting.names}
    weights = [reward.weight for reward in waiting.task.rewards]
    scores = [reply.score for reply in replies.values()]
    known = [score for score in scores if score is not None]
    total = sum(w * s for w, s in zip(weights, known, strict=True)) if len(known) == len(scores) else None
    return Verdict(
        total,
        {name: reply.score for name, reply in replies.items()},
        {name: reply.failure for name, reply in replies.items() if reply.failure is not None},
        {name: reply.fault for name, reply in replies.items() if reply.fault is not None},
        {name: reply.detail for name, reply in replies.items() if reply.detail},
        waiting.seconds,
    )
