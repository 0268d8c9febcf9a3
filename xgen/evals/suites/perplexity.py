"""Perplexity by position in held-out documents."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from xgen.evals.protocol import Item, Record, Subject, SuiteName
from xgen.evals.suites.answers import digest_of, refusing
from xgen.evals.suites.documents import Ids, Wanted, choose
from xgen.evals.suites.prompts import Prompts
from xgen.spec.evaluate import Perplexity

_FIRST = 64  # tokens of the first bin
_PER_OCTAVE = 4


class PerplexitySuite:
    name: SuiteName = "perplexity"

    def __init__(self, specs: Mapping[str, Perplexity], prompts: Prompts) -> None:
        """`specs`: by the name of the task."""
        self._specs, self._prompts = dict(specs), prompts

    def items(self) -> Sequence[Item]:
        """The documents of each, in an order of their own. Raises Refused where none is long enough."""
        by_length = sorted(self._specs.items(), key=lambda one: one[1].length)
        return [
            Item("perplexity", name, spec.length, index)
            for name, spec in by_length
            for index in range(len(self._documents[name]))
        ]

    def score(self, subject: Subject, items: Sequence[Item], stopped: Callable[[], bool]) -> Iterator[Record]:
        def sequences() -> Iterator[list[int]]:
            for item in items:
                if stopped():
                    return
                yield self._documents[item.task][item.index].tolist()

        with refusing("perplexity"):
            began = time.monotonic()
            for item, losses in zip(items, subject.model().losses(sequences()), strict=False):
                ended = time.monotonic()
                yield Record(
                    suite="perplexity",
                    task=item.task,
                    length=item.length,
                    index=item.index,
                    score=float(losses.mean(dtype=np.float64)),
                    bins=bins_of(losses),
                    tokens=len(losses) + 1,
                    seconds=ended - began,
                    source=self._specs[item.task].path,
                    digest=digest_of(self._documents[item.task][item.index].tolist()),
                )
                if stopped():
                    return
                began = time.monotonic()

    @cached_property
    def _documents(self) -> dict[str, Ids]:
        found = {}
        for name, spec in self._specs.items():
            with refusing(f"perplexity.{name}"):
                wanted = Wanted(spec.path, spec.length, spec.documents, spec.seed)
                make = partial(choose, wanted, self._prompts.first_tokens)
                found[name] = self._prompts.counter.cached("held-out", f"{self._prompts.begin}{wanted.content()}", make)
        return found


def bins_of(losses: NDArray[np.float32]) -> list[tuple[int, int, float]]:
    """First position, tokens and sum of nats of each bin: positions 0 to 63, then four bins an octave. The loss of the
    token at position i is `losses[i - 1]`; the one at 0 has none."""
    positions = len(losses) + 1
    octaves = math.ceil(_PER_OCTAVE * math.log2(max(positions / _FIRST, 1)))
    edges = [0, *(round(_FIRST * 2 ** (step / _PER_OCTAVE)) for step in range(octaves)), positions]
    edges = sorted({edge for edge in edges if edge <= positions})
    sums = np.concatenate(([0.0, 0.0], np.cumsum(losses, dtype=np.float64)))  # before position i
    return [(begin, end - max(begin, 1), float(sums[end] - sums[begin])) for begin, end in pairwise(edges) if end > 1]
