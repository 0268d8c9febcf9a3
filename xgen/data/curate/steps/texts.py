"""Excerpts of documents by their numbers, for a person to read."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow

from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.ledger import cut
from xgen.data.curate.steps.tag import DOCS_FILE


def excerpts(context: Context, numbers: Iterable[int]) -> dict[int, str]:
    """The beginning of each document that the filters kept."""
    begins = context.begins
    wanted = np.array(sorted(numbers), dtype=np.int64)
    units = np.searchsorted(begins, wanted, side="right") - 1
    found: dict[int, str] = {}
    for unit in np.unique(units).tolist():
        rows = wanted[units == unit] - begins[unit]
        with pyarrow.memory_map(str(context.folder("tag", unit) / DOCS_FILE)) as file:
            docs = pyarrow.ipc.open_file(file)
            for place in range(docs.num_record_batches):
                batch = docs.get_batch(place)
                column = batch.column("row").to_numpy()
                for at in np.flatnonzero(np.isin(column, rows)).tolist():
                    found[int(column[at]) + int(begins[unit])] = cut(batch.column("text")[at].as_py()[:500])
    return found
