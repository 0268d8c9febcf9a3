"""The tasks of an evaluation: a shard of the samples of each checkpoint, and the report.

Every sample is a line in a file as soon as it is scored. Whatever is killed, the next attempt scores what has no line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from xgen.data.curate.steps.lock import take
from xgen.evals.checkpoints import Wanted
from xgen.evals.conclude import SCORES, conclude, mark_done
from xgen.evals.progress import say
from xgen.evals.records import gone_of, make_folder, num_records, step_folder
from xgen.evals.scoring import Gone, Parts, Scorer
from xgen.runs import RankOutcome, Refused, TaskContext, write_atomic
from xgen.spec import Evaluate

POLL = 5.0  # seconds between two looks for a new checkpoint
_NAP = 0.2  # between two looks for the stop
_TOLD_EVERY = 1.0  # between two words of how many samples are safe


def run_shard(
    context: TaskContext, job: Evaluate, durable: Callable[[int], None], parts: Parts | None = None
) -> RankOutcome:
    """Score what is not done of a shard, checkpoint after checkpoint. `durable` is told how many of its samples are
    safe.

    Raises Refused for what no other try can help, OSError where the disk is full.
    """
    make_folder(context.run.whole.evaluation_dir)
    with _alone(context) as is_alone:
        shard = _Shard(context, job, durable, parts or _own_parts())
        is_done = is_alone and shard.score_all()
    return RankOutcome(
        status="finished" if is_done else "stopped",
        reason="" if is_done else f"after {context.stop.signal}",
        step=shard.num_safe,
        time=time.time(),
    )


def run_report(context: TaskContext, job: Evaluate) -> RankOutcome:
    """Tables and pictures of what the shards have scored. Raises Refused, StoreError, and OSError for a full disk."""
    from xgen.evals.report import collect, write_report

    run = context.run.whole
    for file in write_report(collect(run, job), run.evaluation_dir / "report"):
        say(f"{file} is written")
    for step, why in gone_of(run).items():
        say(f"step {step} was left out: {why}")
    return RankOutcome(status="finished", time=time.time())


def _own_parts() -> Parts:
    from xgen.evals.subject import open_subject
    from xgen.evals.suites import suites_of

    return Parts(open_subject, suites_of)


@contextmanager
def _alone(context: TaskContext) -> Iterator[bool]:
    """Nobody else is at the shard; False where the stop came first. The kernel takes the lock back from the dead."""
    folder = context.run.whole.evaluation_dir
    with (folder / f".lock-{context.shard}").open("a", encoding="utf-8") as lock:
        if not (ours := take(folder, lock.fileno())):
            say(f"another process is at shard {context.shard}; waiting for its end")
        while not ours and not context.stop:
            context.progress.touch()
            time.sleep(_NAP)
            ours = take(folder, lock.fileno())
        yield ours


class _Shard:
    def __init__(self, context: TaskContext, job: Evaluate, durable: Callable[[int], None], parts: Parts) -> None:
        self._context, self._durable, self._run = context, durable, context.run.whole
        self._wanted = Wanted(job, self._run)
        self._scorer = Scorer(context, job, self._wanted, parts, self._written)
        self._hf = job.checkpoints.hf
        self.num_safe = num_records(self._run, context.shard)
        self._told_at = 0.0

    def score_all(self) -> bool:
        """Returns whether nothing is left."""
        self._tell()
        behind: set[int] = set()
        waiting_for = -1
        try:
            while True:
                steps, is_final = self._wanted.ready()
                ahead = next((step for step in steps if step not in behind), None)
                if ahead is None and is_final:
                    self._refuse_nothing(behind)
                    return True
                if self._context.stop or (ahead is not None and not self._take_up(ahead)):
                    return False
                if ahead is not None:
                    behind.add(ahead)
                    continue
                if waiting_for != len(behind):
                    waiting_for = len(behind)
                    say(f"{waiting_for} checkpoints are behind, and {self._wanted.source_name} goes on; waiting")
                self._wait()
        finally:
            self._tell()

    def _take_up(self, step: int) -> bool:
        """Returns False where the stop came before the shard was done with the checkpoint."""
        folder = step_folder(self._run, step)
        name = f"{self._wanted.source_name}@{step}" if self._wanted.source else str(self._hf)
        if (folder / SCORES).exists():  # by an attempt before, which may have died before it told of them
            return conclude(self._context, step, [], name)
        try:
            if not self._scorer.score(step):
                return False
        except Gone as gone:
            make_folder(folder)
            write_atomic(folder / "gone", f"{gone}\n")
            say(f"step {step} is left out: {gone}")
            return True
        mark_done(self._context, step, self._scorer.items)
        conclude(self._context, step, self._scorer.items, name)
        return True

    def _refuse_nothing(self, steps: set[int]) -> None:
        """Raises Refused where all that is wanted is gone, or nothing ever was there."""
        gone = gone_of(self._run)
        if steps <= gone.keys():
            said = "; ".join(f"step {step}: {gone[step]}" for step in sorted(steps)[:3])
            raise Refused(f"checkpoints: none could be scored; {said or 'the training has ended without one'}")

    def _wait(self) -> None:
        until = time.monotonic() + POLL
        self._context.progress.touch()  # a training may take days to its next checkpoint
        while not self._context.stop and time.monotonic() < until:
            time.sleep(_NAP)

    def _written(self) -> None:
        self.num_safe += 1
        self._context.progress.touch()
        if time.monotonic() - self._told_at > _TOLD_EVERY:
            self._tell()

    def _tell(self) -> None:
        self._told_at = time.monotonic()
        self._durable(self.num_safe)
