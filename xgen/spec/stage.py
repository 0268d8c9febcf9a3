"""A stage of a pre-training: what it trains on, for how long, at which rate, in which layout; its place in the run."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from xgen.spec.base import Count, Number, Strict
from xgen.spec.job import Resources
from xgen.spec.units import Length, Steps, Tokens


class LearningRate(Strict):
    """A warm-up to `peak`, then the shape; `to` is reached at the stage's last step.

    The warm-up of the first stage begins at 0, that of a later one where the stage before ended.
    """

    peak: Number | None = Field(default=None, gt=0, description="default: where the stage before ended")
    warmup: Steps = 0
    shape: Literal["stable", "linear", "cosine", "sqrt"] = Field(
        default="stable", description="sqrt: 1 minus the square root of the progress (arXiv 2405.18392)"
    )
    to: Number = Field(default=0.0, ge=0)


class RopeScaling(Strict):
    """YaRN (arXiv 2309.00071), without its change of the attention's temperature. Another base alone (ABF,
    arXiv 2309.16039) is `rope_theta`."""

    kind: Literal["yarn"] = "yarn"
    factor: Number = Field(gt=1, description="how much longer than `original`")
    original: Length = Field(description="the length that the model was trained for before")
    beta_fast: Number = Field(default=32.0, gt=0)
    beta_slow: Number = Field(default=1.0, gt=0)


class Parallelism(Strict):
    """`fsdp` ranks hold one copy of the model in shards, `replicate` such groups split the batch; the ranks of a `tp`
    (tensor) or `cp` (context) group share the samples of one; `pp` ranks have some layers each."""

    fsdp: Count = Field(default=0, ge=0, description="0: all ranks that the others leave")
    replicate: Count = Field(default=1, ge=1)
    tp: Count = Field(default=1, ge=1, description="ranks that split every matrix; keep it inside a node")
    cp: Count = Field(default=1, ge=1, description="ranks that split the sequence, for long contexts")
    pp: Count = Field(default=1, ge=1, description="ranks that split the layers, 1F1B")

    @property
    def others(self) -> int:
        """Ranks for one shard of one copy: all factors but `fsdp`."""
        return self.replicate * self.tp * self.cp * self.pp

    @property
    def shared(self) -> int:
        """Ranks that work on the same samples."""
        return self.tp * self.cp * self.pp

    def shards(self, world_size: int) -> int:
        """`fsdp`, where 0 is what the others leave of `world_size`."""
        return self.fsdp or max(1, world_size // self.others)


class Stage(Strict):
    """One part of the training with its own data budget and schedule, and a job of its own.

    What a later stage leaves out is as in the stage before, but for `tokens` and `lr`; `resources` key by key.
    """

    name: str = Field(description="lower case letters, digits and dashes")
    tokens: Tokens
    mixture: str | None = Field(default=None, description="one of data.mixtures; default: the only one there is")
    seq_len: Length
    global_batch: Length = Field(description="tokens per optimizer step, over all ranks")
    micro_batch: Count = Field(default=1, ge=1, description="sequences per rank in one forward pass")
    rope_theta: Number = Field(default=1e4, gt=0)
    rope_scaling: RopeScaling | None = Field(default=None, description="default: none")
    lr: LearningRate = Field(default_factory=LearningRate)
    parallelism: Parallelism = Field(default_factory=Parallelism)
    activation_checkpointing: Literal["none", "selective", "full"] = Field(
        default="none", description="what of the forward pass is computed again in the backward pass, to save memory"
    )
    attention: Literal["flex", "varlen", "flash"] = Field(
        default="flex",
        description="flex: FlexAttention, with every parallelism; varlen: torch's kernel, document by document; "
        "flash: that of the package flash-attn. The last two know no context parallelism",
    )
    precision: Literal["bf16", "float8"] = Field(
        default="bf16",
        description="float8: matrices are multiplied with a scale for every row (torchao), from an H100 on; "
        "a CPU trains in fp32",
    )
    compile: bool = Field(default=False, description="torch.compile every layer; without effect on a CPU")
    resources: Resources | None = Field(default=None, description="default: as in the stage before, or the job's")

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", value):
            fixed = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")[:32] or "broad"
            raise ValueError(f"{value!r} has other characters than a-z, 0-9 and '-', or is too long; write {fixed}")
        return value

    @model_validator(mode="after")
    def _attention_knows_the_layout(self) -> Self:
        if self.attention != "flex" and self.parallelism.cp > 1:
            raise ValueError(f"attention: {self.attention} knows no context parallelism; write flex, or cp: 1")
        return self

    @property
    def num_steps(self) -> int:
        return math.ceil(self.tokens / self.global_batch)

    @property
    def num_tokens(self) -> int:
        """`tokens`, up to a whole step."""
        return self.num_steps * self.global_batch

    @property
    def sequences_per_step(self) -> int:
        return self.global_batch // self.seq_len


@dataclass(frozen=True)
class Place:
    """A stage at its place in the run."""

    index: int
    stage: Stage
    resources: Resources
    first_step: int  # steps of the stages before
    first_token: int  # tokens of the stages before
    lr_from: float  # where a warm-up begins: 0, or the end of the stage before
    lr_peak: float

    @property
    def last_step(self) -> int:
        """Of the run, when this stage is done."""
        return self.first_step + self.stage.num_steps

    @property
    def lr_to(self) -> float:
        """Where the stage ends."""
        return self.lr_peak if self.stage.lr.shape == "stable" else self.stage.lr.to

    def tokens_at(self, step: int) -> int:
        """Tokens trained on since step 0, after a step of this stage."""
        return self.first_token + (step - self.first_step) * self.stage.global_batch

    def learning_rate(self, step: int) -> float:
        """Of a step of the run; steps count from 1."""
        return self.lr_peak * self.lr_factor(step)

    def lr_factor(self, step: int) -> float:
        """The learning rate over the peak, as torchtitan counts it: the warm-up's last step has the peak, and a decay
        would come to its end in the step after the stage's last."""
        lr, at = self.stage.lr, max(1, step - self.first_step)
        if at <= lr.warmup:
            begin = self.lr_from / self.lr_peak
            return begin + (1 - begin) * (at / lr.warmup)
        if lr.shape == "stable":
            return 1.0
        progress = min(1.0, (at - 1 - lr.warmup) / max(1, self.stage.num_steps - lr.warmup))
        match lr.shape:
            case "linear":
                left = 1 - progress
            case "sqrt":
                left = 1 - math.sqrt(progress)
            case "cosine":
                left = 0.5 * (1 + math.cos(math.pi * progress))
        end = lr.to / self.lr_peak
        return end + (1 - end) * left
