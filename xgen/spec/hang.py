"""How long a job may stand still before it is ended and tried again."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from xgen.spec.base import Strict
from xgen.spec.units import Duration, Quantity, format_duration, parse_duration

AUTO, NEVER = 0, -1
_WORDS = {"auto": AUTO, "never": NEVER}
_LEAST = 300  # seconds without a step that `auto` always bears


def _parse_limit(value: Any) -> int:
    if isinstance(value, str) and value in _WORDS:
        return _WORDS[value]
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{str(error).partition(';')[0]}; write auto, never, or a duration such as 10m") from None
    if seconds < 1:
        raise ValueError(f"{value!r} is no time at all; write auto, never, or a duration such as 10m")
    return seconds


def _write_limit(seconds: int) -> str:
    return next((word for word, code in _WORDS.items() if code == seconds), format_duration(seconds))


Limit = Annotated[
    int, Quantity(_parse_limit, "a duration, or auto or never", ("auto", "10m"), NEVER, write=_write_limit)
]


class Hang(Strict):
    """The longest time between two signs of progress, by what the job is at.

    Each rank has a watchdog. When nothing moves for longer, all ranks write down where they stand, and the attempt ends
    as crashed.
    """

    limit: Limit = Field(
        default=AUTO,
        description="between two steps. auto: 5m, or more where the run's own steps take long; never: nothing is "
        "ended. Of a command: without new output or a new checkpoint; never by default",
    )
    start: Duration = Field(default=1800, description="imports, building, compiling, until the first step is done")
    restore: Duration = Field(default=3600, description="verifying and loading a checkpoint, unless bytes move")
    validation: Duration = Field(default=1800, description="between two batches of a validation")
    checkpoint: Duration = Field(default=3600, description="a save that the training waits for, unless bytes move")
    generate: Duration = Field(default=3600, description="between two answers of online RL")
    results: Duration = Field(
        default=3600, description="of what does not train: between two results, unless it computes or bytes move"
    )
    dump: Duration = Field(default=60, description="how long the ranks get to write down where they stand")

    @field_validator("start", "restore", "validation", "checkpoint", "generate", "results", "dump")
    @classmethod
    def _some_time(cls, value: int) -> int:
        if value < 1:
            raise ValueError("0s is no time at all; write e.g. 10m, or limit: never")
        return value

    @property
    def learns(self) -> bool:
        """Whether the limit of a training follows its own steps."""
        return self.limit == AUTO

    @property
    def seconds(self) -> dict[str, float]:
        """By phase, as `xgen.hang` calls them; of `never` none."""
        if self.limit == NEVER:
            return {}
        own = {} if self.learns else {"command": self.limit}
        return {
            **own,
            "start": self.start,
            "restore": self.restore,
            "first_step": self.start,
            "train": _LEAST if self.learns else self.limit,
            "validation": self.validation,
            "checkpoint": self.checkpoint,
            "generate": self.generate,
            "stop": self.checkpoint,
            "work": self.results,
        }
