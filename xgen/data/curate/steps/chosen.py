"""The documents of which each stays of its cluster, on their way through `select`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.filters.take import take_texts
from xgen.data.curate.report_model import Sample
from xgen.data.curate.steps.ledger import Ledger, beginning
from xgen.data.curate.texts import Texts


@dataclass(frozen=True)
class Batch:
    """Documents under way; the columns are those of docs.arrow."""

    numbers: NDArray[np.uint64]
    domains: list[str]
    sources: list[str]
    licences: list[str]
    languages: list[str]
    scores: NDArray[np.float32]
    texts: Texts

    def num_bytes(self, at: int) -> int:
        return int(self.texts.offsets[at + 1] - self.texts.offsets[at])

    def take(self, kept: NDArray[np.bool_]) -> Batch:
        if kept.all():
            return self
        rows = np.flatnonzero(kept)
        domains, sources, licences, languages = (
            [values[row] for row in rows.tolist()]
            for values in (self.domains, self.sources, self.licences, self.languages)
        )
        texts = take_texts(self.texts, rows)
        return Batch(self.numbers[rows], domains, sources, licences, languages, self.scores[rows], texts)


def keep(batch: Batch, kept: NDArray[np.bool_], step: str, ledger: Ledger) -> Batch:
    """Those that pass a step, counted."""
    left = batch.take(kept)
    for domain, size in zip(left.domains, np.diff(left.texts.offsets).tolist(), strict=True):
        ledger.keep(step, domain, size)
    return left


def sample_of(batch: Batch, at: int, value: float) -> Sample:
    return Sample(
        document=int(batch.numbers[at]),
        domain=batch.domains[at],
        source=batch.sources[at],
        value=value,
        text=beginning(batch.texts, at),
    )
