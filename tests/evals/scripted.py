"""An evaluation whose suites score by a rule: what is tested is who scores which sample, and what becomes of it."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.train.folders import save
from tests.train.forked import SPEC
from xgen.evals.protocol import Item, Record, Subject, Suite, SuiteName
from xgen.evals.records import read_records, step_folder
from xgen.evals.scoring import Parts
from xgen.evals.worker import run_shard
from xgen.runs import Event, EventWriter, RankOutcome, RunDir, StopFlag, TaskContext, read_events
from xgen.runs.shards import mark_durable
from xgen.spec import Evaluate
from xgen.train.manifest import Manifest, verify
from xgen.train.source import job_of

SUITES: tuple[SuiteName, ...] = ("ruler", "recall")


def nothing(_: object) -> None:
    pass


class StopAfter(StopFlag):
    """The signal comes after so many samples."""

    def __init__(self, samples: int) -> None:
        super().__init__()
        self._left = samples

    def sample(self, _item: object) -> None:
        self._left -= 1
        if self._left == 0:
            self.signal = "SIGUSR2"


class ScriptedSubject:
    """Reads its checkpoint as a model would, and knows nothing of it but its step."""

    def __init__(self, source: RunDir, step: int) -> None:
        self.name, self.step, self._folder = f"{source.name}@{step}", step, source.checkpoints_dir / f"step-{step}"
        self.tokenizer, self.stop, self.template = None, (), None

    def model(self) -> Any:
        for entry in Manifest.read(self._folder).files:
            verify(self._folder, entry)

    def export(self, dtype: str) -> Path:
        raise AssertionError(f"no scripted suite reads an export, in {dtype} or otherwise")


@dataclass
class ScriptedSuite:
    name: SuiteName
    num: int  # samples of each task at each length
    pause: float  # seconds a sample
    during: Callable[[Item], object] = nothing

    def items(self) -> Sequence[Item]:
        return [
            Item(self.name, task, length, index)
            for task in ("one", "two")
            for length in (512, 128)
            for index in range(self.num)
        ]

    def score(self, subject: Subject, items: Sequence[Item], stopped: Callable[[], bool]) -> Iterator[Record]:
        for item in items:
            if stopped():
                return
            time.sleep(self.pause)
            self.during(item)
            yield expected(item, subject.step)


def expected(item: Item, step: int) -> Record:
    digest = hashlib.sha256(f"{item} {step}".encode()).hexdigest()
    return Record(
        suite=item.suite, task=item.task, length=item.length, index=item.index, score=int(digest[:8], 16) / 2**32,
        tokens=item.length, seconds=0.25, answer=f"é {digest}", digest=digest[:16],
    )  # fmt: skip


@dataclass
class Bench:
    """A training with checkpoints of a few bytes, an evaluation of it, and attempts on its shards."""

    root: Path
    num: int = 5
    pause: float = 0.001
    during: Callable[[Item], object] = nothing  # a sample is scored
    opened: Callable[[int], object] = nothing  # a checkpoint is, and its weights are not read yet
    attempts: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.source, self.run = RunDir(self.root / "runs/nano-aaaaaa"), RunDir(self.root / "runs/eval-bbbbbb")
        for run in (self.source, self.run):
            run.create()
        self.source.spec_file.write_text(yaml.safe_dump(SPEC))
        job_of(self.source)  # built before the first fork: seconds of each attempt
        self.checkpoints: Any = {"run": self.source.name, "every": 1}

    def save(self, *steps: int) -> None:
        """The training saves, and says so."""
        for step in steps:
            save(self.source, step)
            EventWriter(self.source, "rank0", 1, "1").write("checkpoint_durable", step=step)

    @property
    def job(self) -> Evaluate:
        return Evaluate.model_validate(
            {
                "kind": "evaluate", "name": "eval", "checkpoints": self.checkpoints, "recall": {"lengths": ["4k"]},
                "resources": {"nodes": 1, "gpus_per_node": 0, "time": "5m"},
            }
        )  # fmt: skip

    def parts(self) -> Parts:
        suites = [ScriptedSuite(name, self.num, self.pause, self.during) for name in SUITES]

        def subject(_job: Evaluate, source: RunDir, step: int | None, _run: RunDir) -> Any:
            subject = ScriptedSubject(source, step or 0)
            self.opened(subject.step)
            return subject

        def same(_job: Evaluate, _subject: Subject, _cache: Path) -> Sequence[Suite]:
            return suites

        return Parts(subject, same)

    def context(self, shard: int = 0, num_shards: int = 1, stop: StopFlag | None = None) -> TaskContext:
        own = self.run.shard("score", shard)
        own.checkpoints_dir.mkdir(parents=True, exist_ok=True)
        attempt = self.attempts[shard] = self.attempts.get(shard, 0) + 1
        return TaskContext(
            own, attempt, f"7_{shard}", 0, 0, 1, StopFlag() if stop is None else stop, None, 0, shard, num_shards
        )

    def go(self, shard: int = 0, num_shards: int = 1, stop: StopFlag | None = None) -> RankOutcome:
        """An attempt in this process."""
        context = self.context(shard, num_shards, stop)
        return run_shard(context, self.job, lambda number: mark_durable(context.run, number), self.parts())

    def fork(self, shard: int = 0, num_shards: int = 1, first: Callable[[], None] = lambda: None) -> int:
        """An attempt in a process of its own, as the task runs it; its exit code is 0 when it finished, 75 when it was
        stopped, 78 when it refused, 1 when it crashed. `first` is called in it before."""
        context = self.context(shard, num_shards, StopFlag())
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            log = os.open(self.root / f"log.{shard}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout = sys.stderr = os.fdopen(log, "w", buffering=1, closefd=False)
            context.stop.arm()
            first()
            code = self._attempt(context)
        finally:
            os._exit(code)

    def _attempt(self, context: TaskContext) -> int:
        from xgen.runs import Refused

        try:
            outcome = run_shard(context, self.job, lambda number: mark_durable(context.run, number), self.parts())
        except Refused as error:
            print(f"refused: {error}", flush=True)
            return 78
        except BaseException as error:  # noqa: BLE001
            print(f"crashed: {type(error).__name__}: {error}", flush=True)
            return 1
        return {"finished": 0, "stopped": 75}[outcome.status]

    def log(self, shard: int = 0) -> str:
        return (self.root / f"log.{shard}").read_text()

    def items(self) -> list[Item]:
        return [item for name in SUITES for item in ScriptedSuite(name, self.num, 0).items()]

    def lines(self, step: int) -> list[bytes]:
        """Of all shards."""
        return [line for path in step_folder(self.run, step).glob("*.jsonl") for line in path.read_bytes().splitlines()]

    def assert_each_once(self, *steps: int) -> None:
        """Every sample has one line, the very one that it has where nothing is disturbed."""
        for step in steps:
            wanted = sorted(expected(item, step).model_dump_json(exclude_defaults=True) for item in self.items())
            assert sorted(line.decode() for line in self.lines(step)) == wanted
            assert len(read_records(step_folder(self.run, step))) == len(wanted)

    def evaluated(self) -> list[Event]:
        return [event for event in read_events(self.run) if event.event == "evaluated"]


def reap(pid: int, timeout: float = 60) -> int:
    """Exit code of a process, -N where signal N ended it."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if (found := os.waitpid(pid, os.WNOHANG))[0]:
            return os.waitstatus_to_exitcode(found[1])
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError(f"process {pid} hangs")


def wait_for(condition: Callable[[], object], timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
