"""cluster: the clusters of duplicates among all documents; of each the first that the filters kept is chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.cluster import EXACT, KEPT, SAME_ID, Clusters
from xgen.data.curate.rehydrate import Removals
from xgen.data.curate.steps import results
from xgen.data.curate.steps.base import Context, Item
from xgen.data.curate.steps.earlier import Earlier
from xgen.data.curate.steps.ledger import read_facts
from xgen.data.curate.steps.tag import KEPT_FILE, check_domains

_AT_ONCE = 1 << 20  # documents


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
        count = int(self._context.begins[-1])
        clusters = Clusters(self._num_earlier, count, self._listed(results.EDGES_FILE, tick))
        domains: set[str] = set()
        for begin, one in zip(self._context.begins.tolist(), self._context.units_of("tag"), strict=False):
            kept = np.load(one.folder / KEPT_FILE)
            clusters.marks[begin : begin + len(kept)] = kept * np.uint8(KEPT)
            domains |= read_facts(one.folder).kept.get("read", {}).keys()
            check_domains(domains)
            tick(0)
        for file, mark in ((results.IDS_FILE, SAME_ID), (results.EXACT_FILE, EXACT)):
            for listed in self._listed(file, tick):
                clusters.mark(listed, mark)
        clusters.choose()
        removals: list[Removals] = []
        with (
            _array(folder / results.LABEL_FILE, np.int64, count) as labels,
            _array(folder / results.SIZE_FILE, np.uint32, count) as sizes,
            _array(folder / results.STATE_FILE, np.uint8, count) as states,
        ):
            for begin in range(0, count, _AT_ONCE):
                end = min(begin + _AT_ONCE, count)
                chosen, size, known = clusters.rows(begin, end)
                number = np.arange(begin, end, dtype=np.int64)
                np.where(chosen < 0, number, chosen).tofile(labels)
                size.tofile(sizes)
                _states(clusters.marks[begin:end], chosen == number, known).tofile(states)
                removals.append(Removals.count(*clusters.lowest(begin, end)))
                tick(0)
        found = Removals.merge(removals)
        np.save(folder / results.REMOVALS_FILE, np.stack([found.sizes, found.counts, found.removed]))

    def _listed(self, file: str, tick: Callable[[int], None]) -> Iterator[NDArray[np.uint64]]:
        """What each bucket has found."""
        for one in self._matched:
            tick(0)
            yield np.load(one.folder / file)


def _states(marks: NDArray[np.uint8], chosen: NDArray[np.bool_], known: NDArray[np.bool_]) -> NDArray[np.uint8]:
    state = np.full(len(marks), results.NEAR, dtype=np.uint8)
    state[marks & EXACT > 0] = results.EXACT
    state[chosen] = results.CHOSEN
    state[known] = results.EARLIER
    state[marks & KEPT == 0] = results.FILTERED
    state[marks & SAME_ID > 0] = results.SAME_ID
    return state


@contextmanager
def _array(file: Path, kind: type, length: int) -> Iterator[IO[bytes]]:
    """What `np.save` writes, whose values come piece by piece."""
    about = {"descr": np.lib.format.dtype_to_descr(np.dtype(kind)), "fortran_order": False, "shape": (length,)}
    with file.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, about)
        yield out
