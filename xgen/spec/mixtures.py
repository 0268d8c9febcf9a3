"""The mixtures that a curation writes: how many tokens, and of what."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from xgen.spec.base import Count, Number, Strict
from xgen.spec.units import Length, Tokens

Weight = Annotated[Number, Field(ge=0)]


class Balance(Strict):
    """The share of each domain: `weights`, those that a `regmix` job found, or tokens to the power 1/`temperature`;
    without any all alike (UniMax).

    What `max_epochs` takes from a domain goes to the others.
    """

    weights: dict[str, Weight] = Field(default_factory=dict, description="{DOMAIN: WEIGHT}, relative to each other")
    regmix: str | None = Field(default=None, description="a weights.yaml, in the place of `weights`")
    temperature: Number | None = Field(default=None, ge=1, description="1: in proportion; more: rare ones are raised")

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if bool(self.weights) + (self.regmix is not None) + (self.temperature is not None) > 1:
            raise ValueError("write one of weights, regmix and temperature")
        return self


class LongShare(Strict):
    """For length extension: a share of long documents, domains and lengths else as they are (arXiv 2501.15383)."""

    min_tokens: Length
    share: Annotated[Number, Field(gt=0, lt=1)] = 0.4


class Mixture(Strict):
    """A store of exactly so many tokens."""

    tokens: Tokens
    balance: Balance = Field(default_factory=Balance)
    max_epochs: Number = Field(default=4, gt=0, description="passes over a domain, each with its copies")
    max_epochs_of: dict[str, Annotated[Number, Field(gt=0)]] = Field(default_factory=dict, description="by domain")
    min_band: Count = Field(default=0, ge=0, le=9, description="of quality: tenths of each domain, 9 is the best")
    long: LongShare | None = None
