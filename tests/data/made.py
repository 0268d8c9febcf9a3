"""Parts of a token store in memory, whose tokens show where they were taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xgen.data import Mixture
from xgen.data.mixture import Component


@dataclass(frozen=True)
class MadePart:
    """Documents of `lengths`; token k of the part is `first + k`."""

    lengths: Sequence[int]
    first: int = 0
    meta: Any = field(init=False)
    tokens: NDArray[np.uint32] = field(init=False)
    offsets: NDArray[np.uint64] = field(init=False)

    def __post_init__(self) -> None:
        offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.uint64)
        total = int(offsets[-1])
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "tokens", np.arange(self.first, self.first + total, dtype=np.uint32))
        object.__setattr__(self, "meta", SimpleNamespace(num_tokens=total, num_documents=len(self.lengths)))


def made_mixture(*domains: tuple[Sequence[Sequence[int]], float], max_epochs: float | None = None) -> Mixture:
    """One component for each (documents' lengths by part, weight); all tokens of all parts differ."""
    components, first = [], 0
    for number, (parts, weight) in enumerate(domains):
        made: list[Any] = []
        for lengths in parts:
            made.append(MadePart(lengths, first))
            first += sum(lengths)
        total = sum(part.meta.num_tokens for part in made)
        components.append(
            Component(f"d{number}", tuple(made), total, Fraction(str(weight)), max_epochs, origin=f"o{number}")
        )
    return Mixture(components)


def web_lengths(count: int, seed: int = 0) -> list[int]:
    """Log-normal lengths in tokens, much as documents of the web have them: median 500, mean 1,000."""
    lengths = np.exp(np.random.default_rng(seed).normal(6.2, 1.2, size=count)).astype(int) + 2
    return [int(length) for length in lengths]
