"""deal: of each unit its copies in a mixture, in the order of their places, and which stretch of the store they go to.

An item has copies.npy, bounds.npy [stretches + 1], which says where in it each stretch begins, and a tally.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.budget import Drawn, draw
from xgen.data.curate.spread import places, stretch_of
from xgen.data.curate.steps.balance import MixturePlan, mixture_items, read_mixture, stretches, target_of
from xgen.data.curate.steps.base import Context, Item
from xgen.data.curate.steps.folders import fingerprint
from xgen.data.curate.steps.kept import Kept, Unit
from xgen.data.curate.tally import Tally

COPIES_FILE, BOUNDS_FILE, TALLY_FILE = "copies.npy", "bounds.npy", "tally.npz"
COPY = np.dtype(
    [
        ("place", "<u8"),
        ("number", "<u8"),
        ("begin", "<i8"),  # in the unit's tokens.bin
        ("num_bytes", "<i8"),
        ("num_tokens", "<u4"),  # of this copy; the last one is the end of text
        ("origin", "<u4"),
        ("domain", "<u2"),
    ]
)


class Deal:
    def __init__(self, context: Context) -> None:
        self._context = context
        context.need(list(mixture_items(context).values()), "balance")
        self._kept = Kept.open(context)
        self._plan = cache(lambda name: read_mixture(context, name))

    def items(self) -> Sequence[Item]:
        return [one for some in deal_items(self._context).values() for one in some]

    def write(self, item: Item, folder: Path, tick: Callable[[int], None]) -> None:
        name, _, number = item.name.rpartition("/")
        planned: MixturePlan = self._plan(name)
        unit, job = self._kept.unit(int(number)), self._context.job
        tick(0)
        drawn = draw(unit.documents, target_of(name, job.mixtures[name]), planned.ends, job.seed)
        copies = _copies(unit, drawn, job.seed)
        num_stretches = stretches(planned.planned)
        bounds = np.searchsorted(stretch_of(copies["place"], num_stretches), np.arange(num_stretches + 1))
        np.save(folder / COPIES_FILE, copies)
        np.save(folder / BOUNDS_FILE, bounds.astype(np.int64))
        tally = Tally.count(unit.documents, drawn, len(self._kept.names.domains))
        np.savez(folder / TALLY_FILE, rows=tally.rows, copies=tally.copies, lengths=tally.lengths)


def deal_items(context: Context) -> dict[str, list[Item]]:
    """By mixture: an item for each unit."""
    return {
        name: [
            Item(
                f"{name}/{unit.number:06}",
                context.work / "deal" / name / f"{unit.number:06}",
                fingerprint("deal", one.recipe, unit.number),
            )
            for unit in context.plan.units
        ]
        for name, one in mixture_items(context).items()
    }


def tally_of(context: Context, mixture: str) -> Tally:
    """What a mixture has of all units."""

    def parts() -> Iterator[Tally]:
        for item in deal_items(context)[mixture]:
            with np.load(item.folder / TALLY_FILE) as file:
                yield Tally(file["rows"], file["copies"], file["lengths"])

    return Tally.merge(parts())


def _copies(unit: Unit, drawn: Drawn, seed: int) -> NDArray[np.void]:
    """A row (COPY) for each copy, in the order of their places."""
    documents = unit.documents
    document, copy, place = places(documents.numbers, drawn.copies, seed)
    order = np.argsort(place, kind="stable")
    document, copy = document[order], copy[order]
    found = np.empty(len(order), dtype=COPY)
    found["place"] = place[order]
    columns = {
        "number": documents.numbers, "begin": unit.begins, "num_bytes": unit.num_bytes,
        "num_tokens": documents.num_tokens, "origin": documents.sources, "domain": documents.domains,
    }  # fmt: skip
    for name, values in columns.items():
        found[name] = values[document]
    for cut_document, tokens in drawn.cuts.items():
        row = np.flatnonzero((document == cut_document) & (copy == drawn.copies[cut_document] - 1))
        found["num_bytes"][row] = (
            unit.num_bytes[cut_document] * (tokens - 1) // max(1, int(documents.num_tokens[cut_document]) - 1)
        )
        found["num_tokens"][row] = tokens
    return found
