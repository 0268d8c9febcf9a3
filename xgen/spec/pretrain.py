"""The kind `pretrain`: what text, in which stages, split over the GPUs how."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from xgen.spec.base import Count, Number, Strict, nearest
from xgen.spec.job import Resources
from xgen.spec.stage import Place, Stage
from xgen.spec.trained import Trained
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


class Pretrain(Trained):
    """Pre-training of a decoder from a token store, in stages. Each is a job of its own, after the one before."""

    kind: Literal["pretrain"]
    data: Data
    stages: list[Stage] = Field(min_length=1)
    validation: Validation | None = None

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

    def shares(self, stage: Stage) -> dict[str, Share]:
        """The mixture of a stage; empty: all text in proportion."""
        return self.data.mixtures[stage.mixture or next(iter(self.data.mixtures))] if self.data.mixtures else {}
