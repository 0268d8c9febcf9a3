"""A point of a sweep: the work of its own spec in a shard, which may be ended early by the sweep's rule."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from xgen.runs import Diverged, RankOutcome, Refused, RunDir, TaskContext
from xgen.runs.points import Rule, Verdict, ended_by, pass_milestone, read_values, read_verdict, tell_why_ended
from xgen.spec import Command, Job, Sweep, Tuned, load_resolved

_EVERY = 0.5  # seconds between two looks at the records
_WAIT = 5.0  # seconds for the verdict that rank 0 has written to be seen from another node


def is_point(context: TaskContext) -> bool:
    return context.run.whole.point_file(context.shard).exists() and context.run.whole != context.run


def work_point(context: TaskContext, job: Job, work: Callable[[TaskContext], RankOutcome]) -> RankOutcome:
    """The work of one rank. A point that is stopped by the rule, or whose training has come to nothing, is finished: it
    says why. Raises Refused."""
    rule = _rule(context)
    if rule and (verdict := ended_by(context.run, rule)):
        return _finished(context, verdict.why(rule.metric))
    own = replace(context, shard=0, num_shards=1, stage=len(job.jobs) - 1)
    judges = context.rank == 0
    # The ranks of a training tell each other; those of a command do not.
    watch = _Watch(context.run, rule, judges) if rule and (judges or isinstance(job, Command)) else None
    try:
        outcome = _prepared(own, job, work) or work(own)
    except Diverged as error:
        return _finished(context, f"diverged: {str(error).partition('; look at')[0]}")
    finally:
        if watch:
            watch.end()
    if outcome.status == "stopped" and rule and (verdict := _verdict(context, rule)):
        return _finished(context, verdict.why(rule.metric), outcome.step)
    return outcome


def _rule(context: TaskContext) -> Rule | None:
    from xgen.spec.points import metric_of

    sweep = load_resolved(context.run.whole.spec_file)
    if not isinstance(sweep, Sweep) or sweep.stop is None:
        return None
    stop = sweep.stop
    metric = metric_of(sweep, stop.metric)
    if metric is None:
        raise Refused("stop.metric is missing in the spec of the sweep")
    best = stop.best or (None if stop.metric else sweep.best)
    return Rule(metric, best == "highest", tuple(stop.at), stop.keep, stop.least)


def _prepared(context: TaskContext, job: Job, work: Callable[[TaskContext], RankOutcome]) -> RankOutcome | None:
    """What a fine-tuning prepares, which is a job of its own elsewhere, is the work of the first rank; None once it is
    there."""
    if not isinstance(job, Tuned) or len(job.jobs) == 1:
        return None
    done = context.run.path / "prepared"
    if context.rank == 0 and not done.exists():
        outcome = work(replace(context, stage=0))
        if outcome.status != "finished":
            return outcome
        done.touch()
    while not done.exists():
        if context.stop:
            return RankOutcome(status="stopped", reason=f"after {context.stop.signal}", time=time.time())
        context.progress.touch()  # the first rank's watchdog alone tells whether the preparation hangs
        time.sleep(_EVERY)
    return None


def _verdict(context: TaskContext, rule: Rule) -> Verdict | None:
    """What ended the work; None where it was a signal. Another rank than the first hears of it by the agreement, before
    its node may show the file."""
    deadline = time.monotonic() + (_WAIT if context.rank and not context.stop else 0)
    while not (found := ended_by(context.run, rule)) and time.monotonic() < deadline:
        time.sleep(_EVERY)
    return found


def _finished(context: TaskContext, why: str, step: int | None = None) -> RankOutcome:
    if context.rank == 0:
        tell_why_ended(context.run, why)
        print(f"xgen: this point ends early, {why}", flush=True)
    return RankOutcome(status="finished", reason=why, step=step, time=time.time())


class _Watch:
    """Follows the records of the point from a thread, and stops the work as a signal would when it is not to go on."""

    def __init__(self, run: RunDir, rule: Rule, judges: bool) -> None:
        self._run, self._rule, self._judges = run, rule, judges
        self._left = [step for step in rule.at if read_verdict(run, step) is None]
        self._over = threading.Event()
        self._size = -1
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """It stops nothing from now on."""
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        while self._left and not self._over.wait(_EVERY):
            try:
                if not self._look():
                    os.kill(os.getpid(), signal.SIGUSR2)
                    return
            except OSError as error:  # a full disk costs the comparison, not the training
                print(f"xgen: this point is not compared yet: {error}", file=sys.stderr, flush=True)

    def _look(self) -> bool:
        """Whether the point goes on."""
        if not self._judges:
            return ended_by(self._run, self._rule) is None
        if not self._has_grown():
            return True
        values = read_values(self._run, self._rule.metric)
        for step in list(self._left):
            before = [value for at, value in values if at <= step]
            if not before or values[-1][0] < step:
                break
            kept = pass_milestone(self._run, self._rule, step, before[-1]).kept
            self._left.remove(step)  # what could not be written is tried again with the next numbers
            if not kept:
                return False
        return True

    def _has_grown(self) -> bool:
        sizes = (file.stat().st_size for file in self._run.metrics_dir.glob("*.jsonl"))
        before, self._size = self._size, sum(sizes)
        return self._size != before
