"""What a run of online RL is made of, from its spec."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

import torch

from xgen.data.chat.tokenizer import ChatTokenizer
from xgen.engine import Engine
from xgen.engine.inprocess import InProcessEngine
from xgen.posttrain.rl.judging import RewardJudge
from xgen.runs import TaskContext
from xgen.spec import Rl

# What changes no answer and no verdict, and may change from attempt to attempt.
_OF_THE_MACHINE = {
    "train": {"parallelism", "micro_batch", "activation_checkpointing", "compile"},
    "rollout": {"servers", "at_once"},
}
_ANSWERS_FOLLOW_FROM = (
    "model", "optimizer", "init", "train", "rollout", "rewards", "loss", "dynamic_sampling", "max_resampled",
    "overlong", "seed",
)  # fmt: skip


def make_engine(job: Rl, context: TaskContext, device: torch.device) -> Engine:
    """For the answers of one rank: in its process, or at the servers of the run."""
    if job.rollout.servers:
        from xgen.posttrain.servers import HttpEngine

        dtype: Literal["float32", "bfloat16"] = "float32" if device.type == "cpu" else "bfloat16"
        return HttpEngine(context.run, job, dtype, writer=context.rank == 0)
    layout = job.train
    return InProcessEngine(
        job.model, layout.seq_len, layout.rope_theta, layout.rope_scaling, at_once=job.rollout.at_once, device=device
    )


def make_judge(job: Rl, tokenizer: ChatTokenizer) -> RewardJudge:
    """For the answers of one rank: the ranks of a node share its `verification.workers`. Raises StartError."""
    return RewardJudge(job, tokenizer, max(1, job.verification.workers // job.train_resources.tasks_per_node))


def answers_follow_from(job: Rl, prompts: str) -> str:
    """A fingerprint; `prompts` is that of theirs. Answers that were written under another one are none of this run."""
    facts = {}
    for key in _ANSWERS_FOLLOW_FROM:
        value = job.model_dump(mode="json", include={key})[key]
        facts[key] = (
            {k: v for k, v in value.items() if k not in _OF_THE_MACHINE[key]} if key in _OF_THE_MACHINE else value
        )
    return hashlib.sha256(json.dumps([prompts, facts], sort_keys=True).encode()).hexdigest()[:16]
