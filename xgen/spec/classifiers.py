"""The classifiers of a curation: of quality, and of domains."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from xgen.spec.base import Strict
from xgen.spec.filters import Share


class Classifier(Strict):
    """A model of `xgen data train-classifier` (or of fastText), or documents with labels to train one from."""

    path: str | None = Field(default=None, description="folder of the model, or a .bin or .ftz of fastText")
    labels: dict[str, list[str]] = Field(default_factory=dict, description="{LABEL: [PATH, …]}: the job trains it")
    text_key: str = Field(default="text", description="of the documents with labels")

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.path is None) == (not self.labels):
            raise ValueError("write one of path: FOLDER and labels: {LABEL: [PATH]}")
        return self


class Quality(Classifier):
    """Labels are `good` and `bad`. What is less probably good than `min_probability` goes; the score gives bands."""

    good: str = Field(default="good", description="label of a fastText model that means good")
    min_probability: Share = Field(default=0.5, description="of being good, at least")
    domains: list[str] | None = Field(default=None, description="default: all")

    @model_validator(mode="after")
    def _good_and_bad(self) -> Self:
        if self.labels and set(self.labels) != {"good", "bad"}:
            raise ValueError(f"labels: {', '.join(self.labels)}: a quality model has the labels good and bad")
        return self


class Domains(Strict):
    """Which domain a record is of whose input does not say it: the first rule that fits, else the model, else `other`.

    The taxonomy is that of the rules and of the model's labels.
    """

    rules: dict[str, str] = Field(default_factory=dict, description="{SOURCE: DOMAIN}; * and ? stand for letters")
    model: Classifier | None = None
    min_probability: Share = Field(default=0.5, description="of the model's domain, at least")
    other: str = Field(default="other", description="what is left")
