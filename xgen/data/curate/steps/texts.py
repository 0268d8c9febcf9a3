"""Single documents by their numbers, for a person to read: where they were read, and how they begin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.steps import results
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.earlier import Earlier
from xgen.data.curate.steps.ledger import cut
from xgen.data.curate.steps.tables import rows_of
from xgen.data.curate.steps.tag import DOCS_FILE, DROPPED_FILE, TRACE_FILE
from xgen.data.readers import place_of


@dataclass(frozen=True)
class Origin:
    id: str
    place: str  # "FILE: line N", or a page's file


def excerpts(context: Context, numbers: Iterable[int]) -> dict[int, str]:
    """The beginning of each document: as the filters left it, or as it was read where one of them dropped it."""
    found: dict[int, str] = {}
    for unit, begin, rows in _by_unit(context, numbers):
        for file, column in ((DOCS_FILE, "text"), (DROPPED_FILE, "excerpt")):
            for one in rows_of(context.folder("tag", unit) / file, "row", rows, (column,)):
                found[begin + one["row"]] = cut(one[column])
    return found


def origins(context: Context, numbers: Iterable[int]) -> dict[int, Origin]:
    found: dict[int, Origin] = {}
    for unit, begin, rows in _by_unit(context, numbers):
        for one in rows_of(context.folder("tag", unit) / TRACE_FILE, "row", rows, ("id", "file", "line")):
            found[begin + one["row"]] = Origin(one["id"], place_of(one["file"], one["line"]))
    return found


def first_with_id(context: Context, numbers: Iterable[int]) -> dict[int, int]:
    """Of each record whose id was there in its input: the record that had it first."""
    wanted = np.array(sorted(numbers), dtype=np.int64)
    earlier = Earlier.open(context.job).num_documents
    found: dict[int, int] = {}
    for one in context.buckets_of("match", context.recipes["match"]):
        again = np.load(one.folder / results.IDS_FILE).astype(np.int64) - earlier
        at = np.flatnonzero(np.isin(again, wanted))
        first = np.load(one.folder / results.FIRST_FILE)[at].astype(np.int64) - earlier
        found |= zip(again[at].tolist(), first.tolist(), strict=True)
    return found


def _by_unit(context: Context, numbers: Iterable[int]) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Each unit that has some of the documents: its number, that of its first document, and which rows of it."""
    begins = context.begins
    wanted = np.array(sorted(numbers), dtype=np.int64)
    units = np.searchsorted(begins, wanted, side="right") - 1
    for unit in np.unique(units).tolist():
        yield unit, int(begins[unit]), wanted[units == unit] - begins[unit]
