"""Scores of other models as published, each with its source. Of none are the samples known; none is ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from xgen.data.errors import StoreError
from xgen.evals.measures import AVERAGE


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Frozen):
    """Where a row was read. `quality`: P primary text, S a person who cites it, W news or a digest."""

    text: str
    quality: Literal["P", "S", "W"]


class Row(_Frozen):
    """One model. `scores`: 0 to 1 by the keys of `Score`, such as ruler/average/4096 and harness/MMLU/0."""

    model: str
    source: Source
    scores: Mapping[str, float]


class _Line(_Frozen):
    model: str
    source: str
    harness: dict[str, float] = {}
    ruler: dict[int | Literal["average", "wavg_inc", "wavg_dec"], float] = {}

    @property
    def scores(self) -> dict[str, float]:
        """`average` is that over lengths."""
        of = {f"harness/{column}/0": percent for column, percent in self.harness.items()}
        for at, percent in self.ruler.items():
            of[f"ruler/{AVERAGE}/{at}" if isinstance(at, int) else f"ruler/{at}/0"] = percent
        return {key: round(percent / 100, 6) for key, percent in of.items()}


class _File(_Frozen):
    sources: dict[str, Source]
    rows: list[_Line]


def rows(names: Sequence[str] = ()) -> list[Row]:
    """Those of the models of these names, in their order; without names all. Raises StoreError for one not known."""
    known = _all()
    models = list(dict.fromkeys(row.model for row in known))
    for name in names:
        if name not in models:
            raise StoreError("published", f"{name!r} is not known", f"write of {', '.join(models)}")
    return [row for name in names or models for row in known if row.model == name]


@cache
def _all() -> tuple[Row, ...]:
    text = files("xgen.evals").joinpath("published.yaml").read_text(encoding="utf-8")
    file = _File.model_validate(yaml.safe_load(text))
    return tuple(Row(model=line.model, source=file.sources[line.source], scores=line.scores) for line in file.rows)
