"""The tasks of an evaluation: a shard of its samples, and the report."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from xgen.runs import EXIT_FINISHED, RankOutcome, Refused, TaskContext
from xgen.runs.shards import mark_durable
from xgen.spec import Evaluate

PATIENCE = 5.0  # seconds after the stop
_NAP = 0.2


def evaluate(context: TaskContext, job: Evaluate) -> RankOutcome:
    """Each sample that is scored counts as a checkpoint: a shard that gets on is not given up. Raises Refused."""
    from xgen.data.errors import InterruptedBuildError, StoreError
    from xgen.evals.worker import run_report, run_shard

    try:
        with ends_in_time(context):
            if job.array_of(context.stage):
                return run_shard(context, job, durable=lambda number: mark_durable(context.run, number))
            return run_report(context, job)
    except InterruptedBuildError:
        raise
    except StoreError as error:
        raise Refused(str(error)) from None


@contextmanager
def ends_in_time(context: TaskContext) -> Iterator[None]:
    """What is scored is on disk, and what is under way at a stop, a long answer or a checkpoint that is read, is not
    worth the grace: the process ends, with the outcome that it would have had."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_NAP):
            if context.stop and not over.wait(PATIENCE):
                outcome = RankOutcome(status="stopped", reason=f"after {context.stop.signal}", time=time.time())
                outcome.write(context.run, context.attempt, context.rank)
                os._exit(EXIT_FINISHED)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
