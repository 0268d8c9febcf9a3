"""From a pretrain spec to torchtitan's configuration. What no field of the spec says is torchtitan's default."""

from __future__ import annotations

import math
from typing import Any

from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.optimizer import LRSchedulersContainer, default_adamw
from torchtitan.config import CommConfig, DebugConfig, ParallelismConfig, TrainingConfig
from torchtitan.config.override import OverrideConfig

from xgen.model import ON_CPU, titan_model
from xgen.runs import RunDir
from xgen.spec import LearningRate, Pretrain
from xgen.train.checkpoint import VerifiedCheckpoints
from xgen.train.loader import StoreLoader
from xgen.train.tokenizer import NoTokenizer
from xgen.train.trainer import PretrainTrainer, StepRecorder


def trainer_config(job: Pretrain, run: RunDir) -> PretrainTrainer.Config:
    stage = job.stage
    return PretrainTrainer.Config(
        model_spec=titan_model(job.model, stage.seq_len, stage.rope_theta),
        dump_folder=str(run.path),
        loss=ChunkedLossWrapper.Config(
            num_chunks=math.gcd(8, stage.seq_len),  # torchtitan's 8, where they can be equal parts: it demands that
            loss_fn=CrossEntropyLoss.Config(global_vocab_size=job.model.vocab_size),
        ),
        tokenizer=NoTokenizer.Config(),
        dataloader=StoreLoader.Config(job=job),
        optimizer=default_adamw(lr=stage.lr.peak),
        lr_scheduler=_schedule(stage.lr, stage.num_steps),
        training=TrainingConfig(
            local_batch_size=stage.micro_batch,
            global_batch_size=stage.sequences_per_step,
            seq_len=stage.seq_len,
            steps=stage.num_steps,
            mixed_precision_param="float32" if ON_CPU else "bfloat16",
            disable_cuda_graphs=True,
        ),
        parallelism=ParallelismConfig(
            data_parallel_shard_degree=stage.parallelism.fsdp or -1,
            data_parallel_replicate_degree=stage.parallelism.replicate,
            tensor_parallel_degree=stage.parallelism.tp,
            context_parallel_degree=stage.parallelism.cp,
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
        activation_checkpoint=None,
        comm=CommConfig(trace_buf_size=0),
        debug=DebugConfig(
            seed=job.seed, deterministic=job.deterministic and not ON_CPU, enable_structured_logging=False
        ),
        override=OverrideConfig(imports=["xgen.model.attention.dense_on_cpu"]),
    )


def _schedule(lr: LearningRate, num_steps: int) -> LRSchedulersContainer.Config:
    """torchtitan's warm-up, stable, decay: without `decay_ratio` the decay begins right after the warm-up."""
    settings: dict[str, Any] = {"warmup_steps": lr.warmup, "total_steps": num_steps}
    if lr.shape == "stable":
        return LRSchedulersContainer.Config(**settings, decay_ratio=0.0)
    return LRSchedulersContainer.Config(**settings, decay_type=lr.shape, min_lr_factor=lr.to / lr.peak)
