"""What a training has measured: its loss and speed step by step, its losses on held-out text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xgen.runs import RunDir

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Steps in order [T], each once; those whose loss was not finite are left out. `seconds` is nan where the step
    before is not known."""

    steps: NDArray[np.int64]
    tokens: Floats  # trained on, since step 0
    losses: Floats
    rates: Floats  # tokens a second

    def __len__(self) -> int:
        return len(self.steps)

    def until(self, step: int | None) -> Curve:
        """Up to and with that step."""
        if step is None:
            return self
        end = int(np.searchsorted(self.steps, step, side="right"))
        return Curve(self.steps[:end], self.tokens[:end], self.losses[:end], self.rates[:end])

    @property
    def tokens_per_second(self) -> float | None:
        """Median over steps; None where no two steps follow each other."""
        known = self.rates[np.isfinite(self.rates)]
        return float(np.median(known)) if len(known) else None


@dataclass(frozen=True)
class Validation:
    """Mean loss by domain after a step."""

    step: int
    tokens: int
    losses: Mapping[str, float]


def read_curve(run: RunDir) -> Curve:
    """Of a step that was trained twice the last line counts; lines that were torn are left out. Raises OSError."""
    last: dict[int, tuple[float, float, float]] = {}
    for line in _lines(run.metrics_dir / "steps.jsonl"):
        step, tokens, loss, seconds = (line.get(key) for key in ("step", "tokens", "loss", "seconds"))
        if isinstance(step, int) and isinstance(tokens, int):
            last[step] = (tokens, math.nan if loss is None else float(loss), float(seconds or 0.0))
    steps = np.array(sorted(last), dtype=np.int64)
    tokens, losses, seconds = np.array([last[step] for step in steps.tolist()]).reshape(-1, 3).T
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = np.append(np.nan, np.diff(tokens) / seconds[1:])[: len(steps)]
        follows = np.append(False, np.diff(steps) == 1)[: len(steps)]
    rates = np.where(follows & np.isfinite(rates) & (rates > 0), rates, np.nan)
    kept = np.isfinite(losses)
    return Curve(steps[kept], tokens[kept], losses[kept], rates[kept])


def read_validations(run: RunDir) -> list[Validation]:
    """In the order of their steps; of one step the last. Raises OSError."""
    found: dict[int, Validation] = {}
    for line in _lines(run.metrics_dir / "validation.jsonl"):
        step, tokens, domains = (line.get(key) for key in ("step", "tokens", "domains"))
        if isinstance(step, int) and isinstance(tokens, int) and isinstance(domains, dict):
            found[step] = Validation(step, tokens, {name: one["loss"] for name, one in domains.items()})
    return [found[step] for step in sorted(found)]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    value = json.loads(line)
                except ValueError:  # torn by a crash
                    continue
                if isinstance(value, dict):
                    yield value
    except FileNotFoundError:
        return
