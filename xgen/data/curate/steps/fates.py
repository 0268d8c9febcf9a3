"""What became of every record that was read: from its id to the rule that dropped it, or to the tokens it became."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from xgen.data.curate.steps import results
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.tables import batches_of
from xgen.data.curate.steps.tag import DROPPED_FILE, TRACE_FILE

STATES = {
    results.NEAR: "near.duplicate",
    results.EXACT: "exact.duplicate",
    results.SAME_ID: "ids.there_before",
    results.EARLIER: "earlier.duplicate",
}


@dataclass(frozen=True)
class Fate:
    """`reason` is "" for a document that was kept; `label` the document that stands for its cluster."""

    number: int
    id: str
    reason: str
    size: int
    label: int


def fates(context: Context) -> Iterator[Fate]:
    """In the order of their numbers."""
    folder = context.work / "cluster"
    state, size, label = (
        np.load(folder / name, mmap_mode="r") for name in (results.STATE_FILE, results.SIZE_FILE, results.LABEL_FILE)
    )
    number = 0
    for tagged, selected in zip(context.units_of("tag"), context.units_of("select"), strict=True):
        later: dict[int, str] = {}
        for batch in batches_of(selected.folder / DROPPED_FILE, ("number", "reason")):
            later |= zip(batch.column("number").to_pylist(), batch.column("reason").to_pylist(), strict=True)
        for batch in batches_of(tagged.folder / TRACE_FILE, ("id", "dropped_by")):
            for row in batch.to_pylist():
                # As the steps work: a record that a filter dropped is counted there, whatever it is a duplicate of.
                reason = row["dropped_by"] or STATES.get(int(state[number])) or later.get(number, "")
                yield Fate(number, row["id"], reason, int(size[number]), int(label[number]))
                number += 1
