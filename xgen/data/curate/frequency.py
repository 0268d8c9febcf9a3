"""From the size of a document's cluster of duplicates, its frequency, to how many copies of it there shall be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xgen.data.errors import StoreError

MAX_COPIES = 1000  # of one document: a larger number is a slip of the pen


@dataclass(frozen=True)
class CopyTable:
    """Steps: `copies[i]` for clusters of `starts[i]` documents and more, up to the next step; the first is at 1.

    0 copies leave the documents out.
    """

    starts: tuple[int, ...]
    copies: tuple[int, ...]

    @classmethod
    def parse(cls, table: Mapping[int, int], place: str = "frequency") -> CopyTable:
        """The table {SIZE: COPIES} of a spec, each from its size on. Raises StoreError that names `place`."""
        fix = "write {1: COPIES, SIZE: COPIES, …}, each from its cluster size on"
        if 1 not in table:
            raise StoreError(place, "does not say what becomes of single documents (size 1)", fix)
        for size, copies in table.items():
            if size < 1:
                raise StoreError(place, f"{size} is no size of a cluster", fix)
            if not 0 <= copies <= MAX_COPIES:
                raise StoreError(place, f"{copies} copies for size {size}", f"write 0 to {MAX_COPIES}")
        starts = sorted(table)
        return cls(tuple(starts), tuple(table[start] for start in starts))

    @classmethod
    def of_runs(cls, starts: Sequence[int], copies: Sequence[int]) -> CopyTable:
        """The same with as few steps as say it."""
        changed = [i for i in range(len(starts)) if i == 0 or copies[i] != copies[i - 1]]
        return cls(tuple(int(starts[i]) for i in changed), tuple(int(copies[i]) for i in changed))

    def __call__(self, sizes: NDArray[np.integer]) -> NDArray[np.uint16]:
        """Copies of documents in clusters of `sizes` (1 or more)."""
        return np.array(self.copies, dtype=np.uint16)[self.step(sizes)]

    def step(self, sizes: NDArray[np.integer]) -> NDArray[np.intp]:
        """The number of the step that holds for each of `sizes`."""
        return np.searchsorted(np.array(self.starts, dtype=np.uint32), sizes, side="right") - 1

    def as_dict(self) -> dict[int, int]:
        return dict(zip(self.starts, self.copies, strict=True))


# https://github.com/huggingface/fineweb-2, README: what raised the scores of models, of the little that was tried.
FINEWEB2 = CopyTable.parse({1: 1, 2: 2, 3: 3, 5: 5, 100: 8, 1000: 1})
ONCE = CopyTable.parse({1: 1})


def copies_of(
    sizes: NDArray[np.integer], groups: NDArray[np.integer], tables: Sequence[CopyTable]
) -> NDArray[np.uint16]:
    """Copies of documents by the table of their group: `groups` (sources, say) are numbers in `tables`."""
    if len(tables) == 1:
        return tables[0](sizes)
    copies = np.empty(len(sizes), dtype=np.uint16)
    for table in set(tables):
        chosen = np.isin(groups, [number for number, other in enumerate(tables) if other == table])
        copies[chosen] = table(sizes[chosen])
    return copies
