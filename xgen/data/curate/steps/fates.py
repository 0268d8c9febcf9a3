"""What became of every record that was read: from its id to the rule that dropped it, or to the tokens it became."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow

from xgen.data.curate.steps import results
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.tag import DROPPED_FILE, TRACE_FILE

_STATES = {
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
    begins = context.begins
    folder = context.work / "cluster"
    state, size, label = (
        np.load(folder / name, mmap_mode="r") for name in (results.STATE_FILE, results.SIZE_FILE, results.LABEL_FILE)
    )
    for tagged, selected in zip(context.units_of("tag"), context.units_of("select"), strict=True):
        with pyarrow.memory_map(str(tagged.folder / TRACE_FILE)) as file:
            trace = pyarrow.ipc.open_file(file).read_all().select(["id", "dropped_by"]).to_pylist()
        with pyarrow.memory_map(str(selected.folder / DROPPED_FILE)) as file:
            dropped = pyarrow.ipc.open_file(file).read_all().select(["number", "reason"]).to_pylist()
        later = {row["number"]: row["reason"] for row in dropped}
        for number, row in enumerate(trace, start=int(begins[int(tagged.name)])):
            found = int(state[number])
            # As the steps work: a record that a filter dropped is counted there, whatever it is a duplicate of.
            reason = row["dropped_by"] or _STATES.get(found) or later.get(number, "")
            yield Fate(number, row["id"], reason, int(size[number]), int(label[number]))
