"""Rewards of online RL: what is run on an answer, within which limits, and what it is worth."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from xgen.spec.base import Count, Number, Strict
from xgen.spec.units import Bytes, Length


class Limits(Strict):
    """Of one verdict. What goes beyond is killed and counted: as a failure of the verifier, never as a zero; only a
    program that `code` tests has then not passed."""

    seconds: Number = Field(default=10.0, gt=0, description="of wall clock; as many CPU seconds")
    memory: Bytes = Field(default=1 << 30, description="address space of each process, memory of all of a verdict's")
    processes: Count = Field(default=8, ge=1, description="of one verdict, itself included")
    file_size: Bytes = Field(default=1 << 24, description="of any file that it writes")
    output: Bytes = Field(default=1 << 20, description="bytes of what it prints that are read")


class _Reward(Strict):
    weight: Number = Field(default=1.0, description="its score times this is added to the answer's reward")


def _compiles(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from error
    return value


Pattern = Annotated[str, AfterValidator(_compiles)]


class Exact(_Reward):
    """1 when the answer is `answer`, white space at the ends aside."""

    kind: Literal["exact"]
    extract: Pattern | None = Field(
        default=None, description="a regular expression; the first group of its last match is what is compared"
    )


class Math(_Reward):
    """1 when the last formula or number of the answer equals `answer` (math-verify)."""

    kind: Literal["math"]


class Code(_Reward):
    """The share of `tests` that the answer's program passes; 1 alone counts where `all` is true."""

    kind: Literal["code"]
    all: bool = True


class Format(_Reward):
    """1 when the whole answer matches a regular expression."""

    kind: Literal["format"]
    pattern: Pattern


class LengthPenalty(_Reward):
    """0 up to `free` tokens, then falling to -1 at `most`: DAPO's soft punishment (arXiv 2503.14476, eq. 13)."""

    kind: Literal["length"]
    free: Length
    most: Length

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.most <= self.free:
            raise ValueError(f"most: {self.most} is not above free: {self.free}; write a larger one")
        return self


class RewardModel(_Reward):
    """A score that an OpenAI-compatible server gives (/v1/score or /pooling), or any URL that answers {"score": …}."""

    kind: Literal["model"]
    url: str
    name: str = "reward"

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if not re.fullmatch(r"https?://\S+", value):
            raise ValueError(f"{value!r} is no address; write http://HOST:PORT/v1/score, or https://…")
        return value


class Function(_Reward):
    """A function of yours: `module:function`, importable from the job's code: (prompt, answer, record) -> float."""

    kind: Literal["function"]
    function: str

    @field_validator("function")
    @classmethod
    def _names_one(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
            raise ValueError(f"{value!r} names no function; write MODULE:FUNCTION")
        return value


Reward = Annotated[Exact | Math | Code | Format | LengthPenalty | RewardModel | Function, Field(discriminator="kind")]


class Verification(Strict):
    """How rewards are computed: by processes that were forked ahead and can be killed."""

    workers: Count = Field(default=2, ge=1, description="processes on each node")
    limits: Limits = Field(default_factory=Limits)
    retries: Count = Field(default=1, ge=0, description="of a verdict that failed by no fault of the answer")


def as_list(value: Any) -> Any:
    """{SOURCE: reward} as {SOURCE: [reward]}."""
    if not isinstance(value, dict):
        return value
    return {name: [one] if isinstance(one, dict) else one for name, one in value.items()}
