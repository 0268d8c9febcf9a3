"""From the spec of a training to torchtitan's configuration. What no field of the spec says is torchtitan's default."""

from __future__ import annotations

import math
from importlib.util import find_spec

from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.optimizer import default_adamw
from torchtitan.config import CommConfig, CompileConfig, DebugConfig, ParallelismConfig, TrainingConfig
from torchtitan.config.override import OverrideConfig
from torchtitan.distributed.activation_checkpoint import FullAC

from xgen.model import ON_CPU, titan_model
from xgen.runs import Refused, RunDir
from xgen.spec import Place, Preference, Pretrain, Sft, Stage, Trained, Tuned
from xgen.train.checkpoint import VerifiedCheckpoints
from xgen.train.checkpointing import SelectiveCheckpointing
from xgen.train.learnt import LearntLoss
from xgen.train.loader import StoreLoader
from xgen.train.recorder import StepRecorder
from xgen.train.schedule import StageSchedule
from xgen.train.tokenizer import NoTokenizer
from xgen.train.trainer import JobTrainer

# Seconds that a collective waits for all ranks. In the first save all of them wait while rank 0 plans it; with
# torchtitan's 100 s a thousand ranks might end in it, attempt after attempt.
_TRAIN_TIMEOUT = 600
_START_TIMEOUT = 1800  # until all have loaded and compiled
_CHECKPOINTING = {"none": None, "selective": SelectiveCheckpointing.Config(), "full": FullAC.Config()}


def trainer_config(job: Trained, run: RunDir, index: int = 0) -> JobTrainer.Config:
    """For the job of that index of its jobs. Raises Refused for what this machine or image does not have."""
    place = job.place_of(index)
    stage = place.stage
    _refuse_missing(stage, f"stages.{stage.name}" if isinstance(job, Pretrain) else "train")
    return JobTrainer.Config(
        model_spec=titan_model(
            job.model,
            stage.seq_len,
            stage.rope_theta,
            stage.rope_scaling,
            attention=stage.attention,
            float8=stage.precision == "float8",
            lora=job.adapters,
        ),
        dump_folder=str(run.path),
        # Where prompts and padding are a good part of a batch, they cost no output layer.
        loss=(LearntLoss if isinstance(job, Tuned) else ChunkedLossWrapper).Config(
            num_chunks=math.gcd(8, stage.seq_len),  # torchtitan's 8, where they can be equal parts: it demands that
            loss_fn=CrossEntropyLoss.Config(global_vocab_size=job.model.vocab_size),
        ),
        tokenizer=NoTokenizer.Config(),
        dataloader=_loader(job, run, index),
        optimizer=default_adamw(
            lr=place.lr_peak,
            betas=job.optimizer.betas,
            eps=job.optimizer.eps,
            weight_decay=job.optimizer.weight_decay,
        ),
        lr_scheduler=StageSchedule.Config(place=place, warmup_steps=stage.lr.warmup, total_steps=stage.num_steps),
        training=TrainingConfig(
            local_batch_size=_local_batch(place),
            global_batch_size=stage.sequences_per_step,
            seq_len=stage.seq_len,
            steps=place.last_step,
            max_norm=job.optimizer.max_norm,
            mixed_precision_param="float32" if ON_CPU else "bfloat16",
            disable_cuda_graphs=True,
        ),
        parallelism=ParallelismConfig(
            data_parallel_shard_degree=stage.parallelism.fsdp or -1,
            data_parallel_replicate_degree=stage.parallelism.replicate,
            tensor_parallel_degree=stage.parallelism.tp,
            context_parallel_degree=stage.parallelism.cp,
            pipeline_parallel_degree=stage.parallelism.pp,
            pipeline_parallel_schedule="1F1B",
            pipeline_parallel_microbatch_size=stage.micro_batch if stage.parallelism.pp > 1 else 1,
            # Of the three backends, the one whose every pair of parallelisms ran on a CPU too.
            spmd_backend="partial_dtensor",
        ),
        checkpoint=VerifiedCheckpoints.Config(
            interval=job.checkpoint.every,
            keep=job.checkpoint.keep,
            keep_every=job.checkpoint.keep_every,
            keep_best=job.checkpoint.keep_best,
            asynchronous=job.checkpoint.mode == "async",
            copy_to=job.checkpoint.copy_to or "",
        ),
        metrics=StepRecorder.Config(log_freq=1, disable_color_printing=True),
        activation_checkpoint=_CHECKPOINTING[stage.activation_checkpointing],
        compile=CompileConfig(enable=stage.compile and not ON_CPU),
        comm=CommConfig(trace_buf_size=0, init_timeout_seconds=_START_TIMEOUT, train_timeout_seconds=_TRAIN_TIMEOUT),
        debug=DebugConfig(
            seed=job.seed, deterministic=job.deterministic and not ON_CPU, enable_structured_logging=False
        ),
        override=OverrideConfig(imports=["xgen.model.attention.dense_on_cpu", "xgen.model.attention.documents_on_cpu"]),
    )


def _loader(job: Trained, run: RunDir, index: int) -> BaseDataLoader.Config:
    """None of its own for a job that has no store: its trainer puts one there."""
    if not isinstance(job, Pretrain | Sft | Preference):
        return BaseDataLoader.Config()
    workers, prefetch = job.data.workers, job.data.prefetch
    return StoreLoader.Config(job=job, stage=index, run=run.path, workers=workers, prefetch=prefetch)


def _local_batch(place: Place) -> int:
    """Sequences of a data-parallel rank in one pass: a pipeline takes all of a step, micro-batch after micro-batch."""
    stage, parallelism = place.stage, place.stage.parallelism
    if parallelism.pp == 1:
        return stage.micro_batch
    return stage.sequences_per_step // (place.resources.world_size // parallelism.shared)


def _refuse_missing(stage: Stage, at: str) -> None:
    """Not on CPU alone: the image of a GPU may lack the package, too."""
    for key, value, package, instead in (
        ("attention", "flash", "flash_attn", "varlen"),
        ("precision", "float8", "torchao", "bf16"),
    ):
        if getattr(stage, key) != value:
            continue
        where = f"{at}.{key}"
        if ON_CPU:
            raise Refused(f"{where}: {value} needs a GPU, and here is none; write {instead}")
        if find_spec(package) is None:
            raise Refused(f"{where}: this image lacks {package}; write {instead}, or use one with it (docker/trainer)")
