"""cluster: the clusters of duplicates among all documents; of each the first that the filters kept is chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.cluster import components
from xgen.data.curate.rehydrate import Removals
from xgen.data.curate.steps import results
from xgen.data.curate.steps.base import Context, Item
from xgen.data.curate.steps.earlier import Earlier
from xgen.data.curate.steps.tag import KEPT_FILE


class Cluster:
    """label.npy [documents] is the document chosen of the cluster (its own number where none is), size.npy how many
    there are, state.npy what became of the document. removals.npy [3, sizes]: see `Removals`.

    A document with an id that was there counts in no cluster, and neither do those of earlier corpora.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._matched = context.buckets_of("match", context.recipes["match"])
        self._num_earlier = Earlier.open(context.job).num_documents

    def items(self) -> Sequence[Item]:
        return [self._context.single("cluster")]

    def write(self, item: Item, folder: Path, tick: Callable[[int], None]) -> None:
        del item
        self._context.need(self._matched, "match")
        begins = self._context.begins
        count, earlier = int(begins[-1]), self._num_earlier
        label, _ = components(earlier + count, self._edges(tick))
        kept = np.concatenate(
            [np.zeros(0, np.bool_), *(np.load(one.folder / KEPT_FILE) for one in self._context.units_of("tag"))]
        )
        same_id = self._marked(results.IDS_FILE, count)
        exact = self._marked(results.EXACT_FILE, count)
        own = label[earlier:]
        known = own < earlier  # a document of an earlier corpus has the lowest number of its cluster
        counts = np.bincount(own[~same_id].astype(np.int64), minlength=earlier + count)
        size = counts[own.astype(np.int64)].astype(np.uint32)
        chosen = _first(own, kept & ~same_id & ~known, earlier + count)[own.astype(np.int64)]
        number = np.arange(count, dtype=np.int64)
        state = np.full(count, results.NEAR, dtype=np.uint8)
        state[exact] = results.EXACT
        state[chosen == number] = results.CHOSEN
        state[known] = results.EARLIER
        state[~kept] = results.FILTERED
        state[same_id] = results.SAME_ID
        np.save(folder / results.LABEL_FILE, np.where(chosen < 0, number, chosen))
        np.save(folder / results.SIZE_FILE, size)
        np.save(folder / results.STATE_FILE, state)
        # One document of each cluster: the first.
        first = _first(own, ~same_id & ~known, earlier + count)
        first = first[first >= 0]
        removals = Removals.count(size[first], chosen[first] < 0)
        np.save(folder / results.REMOVALS_FILE, np.stack([removals.sizes, removals.counts, removals.removed]))

    def _edges(self, tick: Callable[[int], None]) -> Iterator[NDArray[np.uint64]]:
        for one in self._matched:
            tick(0)
            yield np.load(one.folder / results.EDGES_FILE)

    def _marked(self, file: str, count: int) -> NDArray[np.bool_]:
        """[documents] those that some bucket lists."""
        marked = np.zeros(count, dtype=np.bool_)
        for one in self._matched:
            listed = np.load(one.folder / file).astype(np.int64) - self._num_earlier
            marked[listed[listed >= 0]] = True
        return marked


def _first(label: NDArray[np.uint64], eligible: NDArray[np.bool_], num_labels: int) -> NDArray[np.int64]:
    """[labels] the lowest document of each that is eligible; -1 where there is none."""
    first = np.full(num_labels, -1, dtype=np.int64)
    documents = np.flatnonzero(eligible)[::-1]
    first[label[documents].astype(np.int64)] = documents  # of several the last one stands: the lowest
    return first
