"""The samples of one shard of one checkpoint that are not scored yet."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from xgen.evals.checkpoints import Wanted, beginning_of, fault_of
from xgen.evals.progress import Meter
from xgen.evals.protocol import Item, Record, Subject, Suite
from xgen.evals.records import RecordWriter, make_folder, read_records, step_folder
from xgen.runs import Diverged, Refused, RunDir, TaskContext
from xgen.spec import Evaluate


class Gone(Exception):  # noqa: N818 - a finding
    """A checkpoint that cannot be scored any more, where others can."""


@dataclass(frozen=True)
class Parts:
    """How a checkpoint is opened (its run and step, or the evaluation's and None for a Hugging Face folder; and the
    evaluation), and what it is scored on."""

    open: Callable[[Evaluate, RunDir, int | None, RunDir], Subject]
    suites: Callable[[Evaluate, Subject, Path], Sequence[Suite]]


class Scorer:
    """Of one shard. What a checkpoint is scored on is made once: all have the same."""

    def __init__(
        self, context: TaskContext, job: Evaluate, wanted: Wanted, parts: Parts, written: Callable[[], None]
    ) -> None:
        """`written` is called after each record."""
        self._context, self._job, self._wanted, self._parts, self._written = context, job, wanted, parts, written
        self._run = context.run.whole
        self._suites: list[tuple[Suite, Sequence[Item]]] = []

    @property
    def items(self) -> list[Item]:
        """All of a checkpoint, once one was scored."""
        return [item for _, items in self._suites for item in items]

    def score(self, step: int) -> bool:
        """Returns False where the stop came before the end. Raises Gone, Refused, and OSError for a full disk."""
        subject = None
        if not self._suites:
            subject = self._open(step)
            cache = Path(self._job.cache) if self._job.cache else self._run.evaluation_dir / "cache"
            self._suites = [(suite, suite.items()) for suite in self._parts.suites(self._job, subject, cache)]
        folder = step_folder(self._run, step)
        done = {record.item for record in read_records(folder)}
        shares = [(suite, items[self._context.shard :: self._context.num_shards]) for suite, items in self._suites]
        if all(item in done for _, items in shares for item in items):
            return True
        subject = subject or self._open(step)
        self._begin(step, folder)
        with RecordWriter(folder / f"{self._context.shard}.jsonl") as writer:
            for suite, items in shares:
                left = sorted((item for item in items if item not in done), key=lambda item: item.length)
                if self._context.stop:
                    return False
                if left and not self._score_suite(step, suite, subject, left, len(items), writer):
                    return False
        return True

    def _open(self, step: int) -> Subject:
        source = self._wanted.source
        if not self._wanted.is_there(step):
            raise Gone(self._wanted.why_gone(step))
        gc.collect()  # one model in memory at a time: parts of the one before may wait for the collector
        with self._unless_gone(step, fault_of):
            return self._parts.open(self._job, source or self._run, step if source else None, self._run)

    def _begin(self, step: int, folder: Path) -> None:
        """All records of a checkpoint are of the same weights. Raises Gone, and Refused for a folder that changed."""
        make_folder(folder)
        with self._unless_gone(step):
            own = beginning_of(self._job, self._wanted.source, step)
        known = own.write(RunDir(folder))
        if known.fingerprint == own.fingerprint:
            (folder / "gone").unlink(missing_ok=True)
        elif self._wanted.source:
            raise Gone(f"{own} was saved anew since samples of it were scored; submit another evaluation for it")
        else:
            raise Refused(f"checkpoints.hf: {own} has changed since samples of it were scored; submit anew")

    def _score_suite(
        self, step: int, suite: Suite, subject: Subject, left: list[Item], total: int, writer: RecordWriter
    ) -> bool:
        """Returns False where the stop came before the end. Raises Gone."""
        if suite.name != "harness":
            with self._unless_gone(step, fault_of):
                subject.model()
        meter = Meter(f"step {step}: {suite.name}" if self._wanted.source else suite.name, total - len(left), left)
        waiting = set(left)
        records = suite.score(subject, left, lambda: bool(self._context.stop))
        while record := self._next(step, records):
            writer.append(record)
            waiting.remove(record.item)
            meter.add(record.item)
            self._written()
        if waiting and not self._context.stop:
            raise AssertionError(f"{suite.name} left out {len(waiting)} samples, e.g. {next(iter(waiting))}")
        if not waiting:
            meter.end()
        return not waiting

    def _next(self, step: int, records: Iterator[Record]) -> Record | None:
        with self._unless_gone(step):
            return next(records, None)

    @contextmanager
    def _unless_gone(self, step: int, fault: Callable[[RunDir, int], str] | None = None) -> Iterator[None]:
        """Whatever goes wrong while a checkpoint is read is Gone, where it is not there any more; what is refused too,
        where it has a fault, for which every byte is read, or where its weights give no numbers."""
        from xgen.train.manifest import Fault

        try:
            yield
        except Exception as error:
            source = self._wanted.source
            if source is None:
                raise
            if not self._wanted.is_there(step):
                raise Gone(self._wanted.why_gone(step)) from None
            if isinstance(error, Diverged):
                raise Gone(str(error)) from None
            if fault and isinstance(error, Refused | Fault) and (found := fault(source, step)):
                raise Gone(f"it does not verify: {found}") from None
            raise
