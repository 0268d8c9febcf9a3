"""The kind `pretrain`: what text, in which stages, split over the GPUs how."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from xgen.spec.base import Count, Number, Strict, nearest
from xgen.spec.job import Job, Resources
from xgen.spec.models import ModelSpec
from xgen.spec.stage import Place, Stage
from xgen.spec.units import Steps, Tokens

_OWN_TO_A_STAGE = {"name", "tokens", "lr"}


class Share(Strict):
    """The part of a mixture that one domain has. A number alone is its weight."""

    weight: Number = Field(gt=0, description="relative to the others; they need not sum to 1")
    max_epochs: Number | None = Field(
        default=None, gt=0, description="its text is never seen more often than this; default: data.max_epochs"
    )

    @model_validator(mode="before")
    @classmethod
    def _by_weight(cls, value: object) -> object:
        return {"weight": value} if isinstance(value, int | float) else value


class Data(Strict):
    """Text as tokens, and how samples are made of it. The order follows from this, `seq_len` and the seed alone."""

    store: str | None = Field(default=None, description="folder of a token store (`xgen data build`)")
    stores: dict[str, str] = Field(default_factory=dict, description="several stores by name, in place of `store`")
    mixtures: dict[str, dict[str, Share]] = Field(
        default_factory=dict,
        description="by name: {DOMAIN or STORE/DOMAIN or STORE/*: weight or {weight, max_epochs}}; "
        "without any, all text in proportion",
    )
    packing: Literal["best_fit", "none"] = Field(
        default="best_fit",
        description="best_fit: whole documents with masks, long ones split; none: plain windows, no masks, one store",
    )
    max_epochs: Number | None = Field(default=None, gt=0, description="for every part of a mixture")
    workers: Count = Field(default=1, ge=0, description="threads that prepare batches; 0: none, for debugging")
    prefetch: Count = Field(default=4, ge=1, description="micro-batches that are prepared ahead")

    @model_validator(mode="after")
    def _some_store(self) -> Self:
        if (self.store is None) == (not self.stores):
            said = "both `store` and `stores` given" if self.stores else "no store given"
            raise ValueError(f"{said}; write store: FOLDER, or stores: {{NAME: FOLDER}}")
        if bad := next((name for name in self.stores if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name)), None):
            raise ValueError(f"stores: {bad!r} is no name; write letters, digits, '_', '.' and '-'")
        if empty := next((name for name, shares in self.mixtures.items() if not shares), None):
            raise ValueError(f"mixtures.{empty} is empty; write {{DOMAIN: WEIGHT}}, or leave it out")
        if self.packing == "none" and (self.stores or self.mixtures or self.max_epochs):
            raise ValueError("packing: none takes one store, no mixture and no cap; write packing: best_fit")
        return self

    @property
    def folders(self) -> dict[str, str]:
        """Folder of each store by its name."""
        return self.stores or {"main": self.store or ""}


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


class Validation(Strict):
    """The loss on text that the training never sees, per domain and per position in the sequence."""

    store: str = Field(description="folder of a token store of held-out text (`xgen data build`)")
    every: Steps = Field(default=500, description="optimizer steps; also at the end of every stage")
    tokens: Tokens = Field(default=1_000_000, description="of each domain, or all that it has")

    @field_validator("every")
    @classmethod
    def _every(cls, value: int) -> int:
        if value < 1:
            raise ValueError(f"{value} would never validate; write 1 or more, or leave `validation` out")
        return value


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


class Pretrain(Job):
    """Pre-training of a decoder from a token store, in stages. Each is a job of its own, after the one before."""

    kind: Literal["pretrain"]
    model: ModelSpec = Field(description="a model's name, or its sizes")
    data: Data
    stages: list[Stage] = Field(min_length=1)
    optimizer: Optimizer = Field(default_factory=Optimizer)
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
    guard: Guard = Field(default_factory=Guard)
    validation: Validation | None = None
    sinks: Sinks = Field(default_factory=Sinks)
    straggler_every: Steps = Field(default=50, description="steps between reports of the slowest rank; 0: none")
    seed: Count = Field(default=0, ge=0)
    deterministic: bool = Field(default=False, description="bit-exact on GPUs too, at the cost of speed")

    @model_validator(mode="before")
    @classmethod
    def _stages_inherit(cls, value: object) -> object:
        """A key that a stage leaves out is that of the stage before."""
        if not isinstance(value, dict) or not isinstance(value.get("stages"), list):
            return value
        whole: list[Any] = []
        for stage in value["stages"]:
            if whole and isinstance(stage, dict) and isinstance(whole[-1], dict):
                before = {key: inherited for key, inherited in whole[-1].items() if key not in _OWN_TO_A_STAGE}
                if isinstance(mine := stage.get("resources"), dict):
                    base = before.get("resources", value.get("resources"))
                    stage = stage | {"resources": (base if isinstance(base, dict) else {}) | mine}  # noqa: PLW2901
                stage = before | stage  # noqa: PLW2901
            elif isinstance(stage, dict) and isinstance(mine := stage.get("resources"), dict):
                base = value.get("resources")
                stage = stage | {"resources": (base if isinstance(base, dict) else {}) | mine}  # noqa: PLW2901
            whole.append(stage)
        return value | {"stages": whole}

    @model_validator(mode="after")
    def _stages_are_named(self) -> Self:
        names = [stage.name for stage in self.stages]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"stages: {twice!r} is the name of two; write another for one of them")
        if self.stages[0].lr.peak is None:
            raise ValueError("stages[0].lr.peak is missing: no stage is before it; write e.g. lr: {peak: 3e-4}")
        for number, stage in enumerate(self.stages):
            if stage.lr.peak is None and stage.lr.warmup:
                raise ValueError(
                    f"stages[{number}].lr.warmup has nowhere to go: without a peak the rate begins where the stage "
                    "before ended; write lr.peak, or leave the warm-up out"
                )
        return self

    @model_validator(mode="after")
    def _validation_is_no_pipeline(self) -> Self:
        for number, stage in enumerate(self.stages):
            if self.validation and stage.parallelism.pp > 1:
                key = f"stages[{number}].parallelism.pp"
                raise ValueError(f"validation is not computed in a pipeline yet; write {key}: 1, or no validation")
        return self

    @model_validator(mode="after")
    def _plain_windows_are_one_stage(self) -> Self:
        if self.data.packing == "none" and len(self.stages) > 1:
            raise ValueError("data.packing: none knows no stages: the next would read the same again; write best_fit")
        return self

    @model_validator(mode="after")
    def _mixtures_are_named(self) -> Self:
        known = self.data.mixtures
        for number, stage in enumerate(self.stages):
            if stage.mixture is None and len(known) > 1:
                raise ValueError(f"stages[{number}].mixture is missing; {nearest('', known)}")
            if stage.mixture is not None and stage.mixture not in known:
                hint = nearest(stage.mixture, known) if known else "there is none in data.mixtures"
                raise ValueError(f"stages[{number}].mixture: {stage.mixture!r} is not in data.mixtures; {hint}")
        return self

    @property
    def jobs(self) -> tuple[tuple[str, Resources], ...]:
        return tuple((place.stage.name, place.resources) for place in self.places)

    @property
    def places(self) -> tuple[Place, ...]:
        """The stages, each with what the ones before it sum up to."""
        places: list[Place] = []
        step = token = 0
        rate = 0.0
        for index, stage in enumerate(self.stages):
            peak = rate if stage.lr.peak is None else stage.lr.peak
            place = Place(index, stage, stage.resources or self.resources, step, token, rate, peak)
            places.append(place)
            step, token, rate = place.last_step, place.first_token + stage.num_tokens, place.lr_to
        return tuple(places)

    def place_after(self, step: int) -> Place:
        """Where a run goes on that has `step` steps behind it; the last stage where all is done."""
        return next((place for place in self.places if step < place.last_step), self.places[-1])

    def shares(self, stage: Stage) -> dict[str, Share]:
        """The mixture of a stage; empty: all text in proportion."""
        return self.data.mixtures[stage.mixture or next(iter(self.data.mixtures))] if self.data.mixtures else {}
