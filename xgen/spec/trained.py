"""What every kind of training has: a model, an optimizer, checkpoints, a guard, places at which its parts stand."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from xgen.spec.base import Count, Number, Strict
from xgen.spec.job import Job
from xgen.spec.models import ModelSpec
from xgen.spec.stage import Place
from xgen.spec.units import Steps


class Optimizer(Strict):
    """AdamW. The defaults are those of Llama 2 (arXiv 2307.09288) but for eps: torchtitan's, where Llama 2 has 1e-5."""

    betas: tuple[Annotated[Number, Field(ge=0, lt=1)], Annotated[Number, Field(ge=0, lt=1)]] = (0.9, 0.95)
    eps: Number = Field(default=1e-8, gt=0)
    weight_decay: Number = Field(default=0.1, ge=0)
    max_norm: Number = Field(default=1.0, gt=0, description="gradients are clipped to this norm")


class Guard(Strict):
    """What is done about a loss or gradient norm that is not finite, or far above the last ones. It is always recorded.

    A spike is a value above the median of the last `window` steps by more than `threshold` times their spread.
    """

    non_finite: Literal["stop", "skip", "rollback"] = Field(
        default="skip",
        description="skip: the step changes no weight; rollback: back to the last checkpoint, and on with other data; "
        "stop: the run fails, to be looked at",
    )
    spike: Literal["record", "stop", "skip", "rollback"] = "record"
    threshold: Number = Field(default=10.0, gt=0, description="spreads above the median; the spread is the MAD x 1.48")
    window: Count = Field(
        default=100, ge=8, description="steps; a stage's first 20, or its first `window`, know no spike"
    )
    most: Count = Field(default=10, ge=1, description="the run fails after so many skips or rollbacks within `window`")


class WandB(Strict):
    """Weights & Biases. Its key comes from `secrets: {WANDB_API_KEY: …}`; without the package the run is refused."""

    project: str
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"


class Sinks(Strict):
    """Where the metrics go besides the run directory and Prometheus."""

    tensorboard: bool = Field(default=False, description="event files in metrics/tensorboard of the run directory")
    wandb: WandB | None = None

    @property
    def packages(self) -> tuple[str, ...]:
        """What must be installed where the job runs."""
        return (*(["tensorboard"] if self.tensorboard else []), *(["wandb"] if self.wandb else []))


class Checkpoint(Strict):
    every: Steps = Field(default=500, description="optimizer steps between periodic checkpoints")
    keep: Count = Field(default=2, ge=2, description="the newest complete checkpoints that are kept")
    keep_every: Steps = Field(default=0, description="also keep those of every so many steps; 0: none")
    keep_best: Count = Field(default=0, ge=0, description="also keep so many of the lowest training loss")
    mode: Literal["async", "sync"] = Field(
        default="async", description="async: written while training goes on; takes the state's size in host memory"
    )
    copy_to: str | None = Field(
        default=None, description="a second place for every checkpoint, as fsspec writes it, e.g. s3://bucket/runs"
    )

    @field_validator("every")
    @classmethod
    def _every(cls, value: int) -> int:
        if value < 1:
            raise ValueError(f"{value} would never save; write 1 or more")
        return value


class Lora(Strict):
    """Low-rank updates in place of all weights (arXiv 2106.09685); a checkpoint holds them and not the frozen rest."""

    rank: Count = Field(ge=1)
    alpha: Number = Field(gt=0, description="the update is scaled by alpha / rank")
    targets: list[Literal["attention", "feed_forward"]] = Field(
        default=["attention", "feed_forward"], min_length=1, description="whose matrices get an update"
    )


class Trained(Job):
    """A job that trains weights: pre-training and every kind of post-training, on one trainer."""

    model: ModelSpec = Field(description="a model's name, or its sizes")
    optimizer: Optimizer = Field(default_factory=Optimizer)
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
    guard: Guard = Field(default_factory=Guard)
    sinks: Sinks = Field(default_factory=Sinks)
    straggler_every: Steps = Field(default=50, description="steps between reports of the slowest rank; 0: none")
    seed: Count = Field(default=0, ge=0)
    deterministic: bool = Field(default=False, description="bit-exact on GPUs too, at the cost of speed")

    @property
    def places(self) -> tuple[Place, ...]:
        """The parts of the training in order, each with what the ones before it sum up to."""
        raise NotImplementedError

    @property
    def adapters(self) -> Lora | None:
        """What is trained in the place of all weights."""
        return None

    def trains(self, stage: int) -> bool:
        """Whether the job of an index in `jobs` trains, and does not prepare or serve."""
        del stage
        return True

    def place_of(self, stage: int) -> Place:
        """The part that the job of an index in `jobs` trains."""
        return self.places[stage]

    def place_after(self, step: int) -> Place:
        """Where a run goes on that has `step` steps behind it; the last part where all is done."""
        return next((place for place in self.places if step < place.last_step), self.places[-1])
