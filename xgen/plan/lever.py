"""What to change in a stage that does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from xgen.plan.layout import fits
from xgen.plan.memory import memory
from xgen.plan.tuned import NOTHING, Beside
from xgen.spec import ModelSpec, Parallelism, Place


def lever(model: ModelSpec, place: Place, limit: float, also: Beside = NOTHING) -> str:
    """What to write so that a stage fits into `limit` bytes, '' when nothing simple does."""
    for changed in _tries(place):
        tried = replace(place, stage=place.stage.model_copy(update=changed))
        if fits(model, tried) and memory(model, tried, also).total <= limit:
            told = {key: value for key, value in changed.items() if getattr(place.stage, key) != value}
            return " and ".join(f"{key}: {_show(value)}" for key, value in told.items())
    return ""


def _tries(place: Place) -> Iterator[dict[str, Any]]:
    """The cheapest first."""
    stage, parallel = place.stage, place.stage.parallelism
    shards = parallel.shards(place.resources.world_size)
    yield {"micro_batch": 1}
    if stage.activation_checkpointing == "none":
        yield {"activation_checkpointing": "selective"}
    yield {"activation_checkpointing": "full"}
    least: dict[str, Any] = {"activation_checkpointing": "full", "micro_batch": 1}
    yield least
    if parallel.replicate > 1:
        wider = parallel.model_copy(update={"fsdp": shards * parallel.replicate, "replicate": 1})
        yield {"parallelism": wider} | least
    if stage.attention == "flex":  # the others know no context parallelism
        for factor in (2, 4, 8, 16):
            if shards % factor == 0:
                longer = parallel.model_copy(update={"fsdp": shards // factor, "cp": parallel.cp * factor})
                yield {"parallelism": longer} | least


def _show(value: object) -> object:
    """A layout whole, as it replaces the one that is there."""
    if not isinstance(value, Parallelism):
        return value
    factors = value.model_dump()
    return f"{{{', '.join(f'{name}: {size}' for name, size in factors.items() if size != 1 or name == 'fsdp')}}}"
