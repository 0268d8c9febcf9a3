"""The tasks of jobs that train: pre-training, and the steps of a post-training."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from xgen.runs import RankOutcome, Refused, TaskContext
from xgen.spec import Preference, Rl, Sft, Trained

if TYPE_CHECKING:
    from xgen.train.trainer import JobTrainer


def work(context: TaskContext, job: Trained) -> RankOutcome:
    """One of its steps, by the name of the job; the stages of a pre-training all train. Raises Refused."""
    step = job.jobs[context.stage][0]
    if isinstance(job, Sft | Preference) and step == "prepare":
        return _prepare(context, job)
    return _train(context, job)


def _train(context: TaskContext, job: Trained) -> RankOutcome:
    from xgen.train import run_training

    match job:
        case Preference() if job.jobs[context.stage][0] == "reference":
            result = run_training(context, job, _reference_trainer)
        case Preference():
            result = run_training(context, job, _preference_trainer)
        case Rl():
            result = run_training(context, job, _rl_trainer)
        case _:
            result = run_training(context, job)
    reason = f"after {result.signal}" if result.signal else ""
    return RankOutcome(status=result.status, reason=reason, step=result.step, time=time.time())


def _preference_trainer() -> type[JobTrainer]:
    from xgen.posttrain.preference.trainer import PreferenceTrainer

    return PreferenceTrainer


def _reference_trainer() -> type[JobTrainer]:
    from xgen.posttrain.preference.reference_trainer import ReferenceTrainer

    return ReferenceTrainer


def _rl_trainer() -> type[JobTrainer]:
    from xgen.posttrain.rl.trainer import RlTrainer

    return RlTrainer


def _prepare(context: TaskContext, job: Sft | Preference) -> RankOutcome:
    """Conversations as tokens, once: by one task without a GPU."""
    from xgen.data.chat.prepare import chat_store, prepare
    from xgen.data.errors import InterruptedBuildError, StoreError

    context.progress.enter("work")
    try:
        found = prepare(job, chat_store(job, context.run.path), lambda: bool(context.stop))
    except InterruptedBuildError:
        raise
    except StoreError as error:
        raise Refused(str(error)) from None
    if found is None:
        return RankOutcome(status="stopped", reason=f"after {context.stop.signal}", time=time.time())
    print(f"{found.store.path} {'is written' if found.written else 'was there already'}", flush=True)
    return RankOutcome(status="finished", time=time.time())
