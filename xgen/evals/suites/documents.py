"""Documents that are long enough, chosen by seed from any amount of text, which is read once and not held."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from xgen.data.errors import StoreError
from xgen.data.permutation import permute
from xgen.data.readers import Bad, Defaults, Keys, Record, read_unit
from xgen.data.units import Plan, hub_files, plan_units

Ids = NDArray[np.int64]
_ENOUGH = 1 << 30  # bytes: so much is looked at although there are enough documents
_LONGEST = 1 << 30  # bytes of a document
_DEFAULTS = Defaults("held-out", "held-out")


@dataclass(frozen=True)
class Wanted:
    """`count` documents of `length` tokens or more from `path`, a file or folder as `xgen data build` takes it."""

    path: str
    length: int
    count: int
    seed: int

    def content(self) -> str:
        """What the choice depends on: this, and the files as they are now. Raises StoreError."""
        files = [*plan_units([self.path]).files, *hub_files([self.path])]
        return json.dumps([asdict(self), [asdict(file) for file in files]])


def choose(wanted: Wanted, first_tokens: Callable[[str, int], list[int]]) -> Ids:
    """The first tokens of each document: [documents, length]; fewer than are wanted where there are not so many.

    Units are read in an order of the seed, to the end or until there are enough after 1 GiB. Of what was read every
    document is as likely as another. Raises StoreError when none is long enough.
    """
    best: list[tuple[int, list[int]]] = []  # a heap; the worst rank, which is negative, comes first
    longest, read, bad = "", 0, None
    for place, record in _records(plan_units([wanted.path]), wanted.seed):
        if isinstance(record, Bad):
            bad = bad or record
            continue
        read += record.num_bytes
        longest = max(longest, record.text, key=len)
        full = len(best) == wanted.count
        if full and read > _ENOUGH:
            break
        rank = -xxhash.xxh64_intdigest(f"{wanted.seed} {place}".encode())
        # A token is a byte or more, but for normalizers that add some.
        if record.num_bytes < wanted.length // 2 or (full and rank < best[0][0]):
            continue
        ids = first_tokens(record.text, wanted.length)
        if len(ids) == wanted.length:
            (heapq.heappushpop if full else heapq.heappush)(best, (rank, ids))
    if not best:
        raise _none(wanted, len(first_tokens(longest, wanted.length)) if longest else 0, bad)
    return np.array([ids for _, ids in sorted(best, reverse=True)], dtype=np.int64)


def _records(plan: Plan, seed: int) -> Iterator[tuple[str, Record | Bad]]:
    """With its place, which does not tell where the input lies."""
    for number in range(len(plan.units)):
        unit = permute(number, len(plan.units), seed, "units")
        for place, record in enumerate(read_unit(plan.units[unit], Keys(), _DEFAULTS, _LONGEST)):
            yield f"{unit} {place}", record


def _none(wanted: Wanted, longest: int, bad: Bad | None) -> StoreError:
    if not longest:
        what = f"no document can be read ({bad.place}: {bad.reason})" if bad else "holds no document"
        return StoreError(wanted.path, what, "name documents with a key `text`")
    what = f"has no document of {wanted.length} tokens; the longest has {longest}"
    return StoreError(wanted.path, what, f"write length: {longest}, or name longer documents")
