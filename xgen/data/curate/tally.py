"""What a plan holds, counted by domain, source, band of quality and cluster size: the table of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.budget import Documents, Plan

SIZE_BINS = (1, 2, 3, 5, 10, 30, 100, 300, 1000)  # each up to the next


@dataclass(frozen=True)
class Row:
    """Documents that have all of these in common, as they are and as the plan takes them."""

    domain: str
    source: str
    band: int
    size: int  # clusters of this size up to the next bin's
    num_documents: int
    num_tokens: int
    planned_documents: int  # with at least one copy
    planned_copies: int
    planned_tokens: int

    @property
    def repeats(self) -> float:
        """Mean copies of a document that is taken."""
        return self.planned_copies / self.planned_documents if self.planned_documents else 0.0


def tally(documents: Documents, plan: Plan, size_bins: Sequence[int] = SIZE_BINS) -> tuple[Row, ...]:
    """Rows in order of domain, source, band and size; their planned tokens sum to those of the plan."""
    bins = np.searchsorted(np.array(size_bins), documents.sizes, side="right") - 1
    columns = (documents.domains, documents.sources, documents.bands, bins)
    row, keys = np.zeros(len(documents), dtype=np.int64), np.zeros((1, 0), dtype=np.int64)
    for column in columns:
        span = int(column.max()) + 1 if len(column) else 1
        row = row * span + column
        present = np.flatnonzero(np.bincount(row))
        keys = np.column_stack([keys[present // span], present % span])
        number = np.zeros(int(present[-1]) + 1 if len(present) else 1, dtype=np.int64)
        number[present] = np.arange(len(present))
        row = number[row]
    lengths = documents.num_tokens.astype(np.int64)
    planned = lengths * plan.copies
    for document, tokens in plan.cuts.items():
        planned[document] -= lengths[document] - tokens
    taken = (plan.copies > 0).astype(np.int64)
    sums = [_sums(row, values, len(keys)) for values in (None, lengths, taken, plan.copies, planned)]
    return tuple(
        Row(documents.domain_names[domain], documents.source_names[source], band, size_bins[size], *counts)
        for (domain, source, band, size), *counts in zip(keys.tolist(), *sums, strict=True)
    )


def copies_by_size(documents: Documents, plan: Plan) -> dict[tuple[int, int], int]:
    """{(cluster size, copies): documents}: shows that the table was applied as it stands."""
    pairs, counts = np.unique(documents.sizes.astype(np.uint64) << np.uint64(32) | plan.copies, return_counts=True)
    return {(pair >> 32, pair & 0xFFFFFFFF): count for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)}


def _sums(row: NDArray[np.intp], values: NDArray[np.integer] | None, num_rows: int) -> list[int]:
    # Sums of floats are exact up to 2^53.
    return [int(total) for total in np.bincount(row, weights=values, minlength=num_rows)]
