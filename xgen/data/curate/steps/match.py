"""match: of each bucket of keys, which documents are duplicates: edges between their numbers.

Documents of earlier corpora come first in the numbering: what is like one of them is a duplicate of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.cluster import reduce_edges
from xgen.data.curate.match import match
from xgen.data.curate.steps.base import Context, Item
from xgen.data.curate.steps.earlier import Earlier
from xgen.data.curate.steps.keys import read_keys
from xgen.data.curate.steps.results import EDGES_FILE, EXACT_FILE, FIRST_FILE, IDS_FILE, UNPLACED_FILE
from xgen.data.curate.steps.tag import geometry_of


class Match:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._earlier = Earlier.open(context.job)
        self._begins = context.begins + self._earlier.num_documents
        self._max_differing = geometry_of(context.job).max_differing

    def items(self) -> Sequence[Item]:
        return self._context.buckets_of("match", self._context.recipes["match"])

    def write(self, item: Item, folder: Path, tick: Callable[[int], None]) -> None:
        bucket = int(item.name)
        near = match(self._records(bucket, "near", tick), self._max_differing)
        exact = match(self._records(bucket, "exact", tick), 0)
        same_id = match(self._records(bucket, "ids", tick), 0)
        np.save(folder / EDGES_FILE, reduce_edges(np.concatenate([near.edges, exact.edges])))
        np.save(folder / EXACT_FILE, np.unique(exact.edges[:, 1]))
        again, at = np.unique(same_id.edges[:, 1], return_index=True)
        np.save(folder / IDS_FILE, again)
        np.save(folder / FIRST_FILE, same_id.edges[at, 0])
        np.save(folder / UNPLACED_FILE, np.array(near.num_unplaced, dtype=np.int64))

    def _records(self, bucket: int, section: str, tick: Callable[[int], None]) -> NDArray[np.uint64]:
        """Those of all units in a bucket, by the numbers of their documents."""
        parts = [self._earlier.records(section, bucket, self._context.plan.num_buckets)]
        for records in bucket_records(self._context, self._begins, bucket, section):
            parts.append(records)
            tick(0)
        return np.concatenate(parts)


def bucket_records(
    context: Context, begins: NDArray[np.int64], bucket: int, section: str
) -> Iterator[NDArray[np.uint64]]:
    """Records of all units in a bucket; `begins` is what is added to the numbers of its documents."""
    for unit in context.plan.units:
        for records in read_keys(context.folder("tag", unit.number), section, bucket):
            records[:, 1] += np.uint64(begins[unit.number])
            yield records
