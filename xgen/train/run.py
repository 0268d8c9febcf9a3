"""One rank of one attempt of a training, from the environment that the batch script made."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from xgen.runs import Ledger, Refused, TaskContext, read_events, replay
from xgen.spec import Rl, Trained, load_profile
from xgen.train import flight, preverify, startup

if TYPE_CHECKING:
    from xgen.metrics import RunExporter, TrainingPlan
    from xgen.train.trainer import JobTrainer, TrainResult


def _own_trainer() -> type[JobTrainer]:
    from xgen.train.trainer import JobTrainer

    return JobTrainer


def run_training(
    context: TaskContext, job: Trained, kind: Callable[[], type[JobTrainer]] = _own_trainer
) -> TrainResult:
    """Train until the end or until told to stop; `kind` imports the trainer. Raises Refused when no other try can
    help."""
    os.environ |= {
        "RANK": str(context.rank),
        "LOCAL_RANK": str(context.local_rank),
        "WORLD_SIZE": str(context.world_size),
        "LOCAL_WORLD_SIZE": str(job.place_of(context.stage).resources.tasks_per_node),
        # gloo connects the ranks that talk to each other; without it all to all, half a million times for 1,000 ranks.
        "TORCH_GLOO_LAZY_INIT": "1",
    }
    exporter = _start_exporter(context)
    try:
        return _train(context, job, exporter, kind)
    finally:
        if exporter:
            exporter.close()


def _train(
    context: TaskContext, job: Trained, exporter: RunExporter | None, kind: Callable[[], type[JobTrainer]]
) -> TrainResult:
    preverify.start(context.run, context.rank, context.world_size)
    gc.disable()  # a hundred thousand objects come with the imports, and none of them goes
    import torch
    import torch.distributed as dist

    torch.set_num_threads(job.place_of(context.stage).resources.cpus_per_task)
    import xgen.model  # before anything imports torchtitan: it settles the device
    from xgen.data.errors import StoreError
    from xgen.train.config import trainer_config
    from xgen.train.fabric import check_bandwidth
    from xgen.train.rng import seed_rng

    own = kind()
    gc.freeze()
    gc.enable()
    startup.mark("imports")
    seed_rng(job.seed)
    if job.deterministic and xgen.model.ON_CPU:
        torch.set_deterministic_debug_mode("error")  # torchtitan's way would also compile FlexAttention anew
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        config = own.adapt(trainer_config(job, context.run, context.stage), job)
        flight.turn_on(config.comm, context, "gloo" if xgen.model.ON_CPU else "nccl")
        trainer = own(config, context, job, exporter)
    except StoreError as error:
        raise Refused(str(error)) from None
    if exporter:
        exporter.will_train(_training_plan(trainer))
    try:
        check_bandwidth(context, job, trainer.device)
        result = trainer.fit()
    finally:
        if exporter:
            from xgen.metrics import remove_target

            remove_target(context.run.discovery_file)  # first of all: Prometheus takes seconds to notice
        trainer.close()
    dist.destroy_process_group()
    return result


def _training_plan(trainer: JobTrainer) -> TrainingPlan:
    """Of the stage that is trained; FLOPs as `xgen plan` counts them, what is computed again left out."""
    import resource

    import torch

    from xgen.metrics import TrainingPlan

    job, place, device = trainer.job, trainer.place, trainer.device
    ideal = None
    if device.type != "cpu" and not isinstance(job, Rl):  # whose steps are as full as its answers are long
        gpus = load_profile(trainer.context.run.profile_file).gpus
        flops = job.model.flops_per_token(place.stage.seq_len) * place.stage.global_batch
        ideal = flops / (gpus.flops * trainer.context.world_size)

    def memory() -> dict[str, int]:
        if device.type == "cpu":
            return {"rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
        return {
            "allocated_peak": torch.accelerator.max_memory_allocated(device),
            "reserved_peak": torch.accelerator.max_memory_reserved(device),
        }

    last = job.places[-1]
    return TrainingPlan(last.tokens_at(last.last_step), ideal, memory, trainer.dataloader.taken)


def _start_exporter(context: TaskContext) -> RunExporter | None:
    """Rank 0 answers Prometheus from its first moment on: a slow start is seen too."""
    if context.events is None:
        return None
    from xgen.metrics import RunExporter, write_target

    profile = load_profile(context.run.profile_file)
    ledger: Ledger = replay(read_events(context.run))
    context.events.subscribe(ledger)
    exporter = RunExporter(ledger, profile.metrics.address)
    port = exporter.start()
    write_target(
        context.run.discovery_file,
        address=profile.metrics.address,
        port=port,
        run=context.run.name,
        attempt=context.attempt,
        job_id=context.job_id,
    )
    return exporter
