"""All documents that `select` kept, as arrays, a unit at a time; and what their numbers stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from xgen.data.curate.budget import Documents, Rule
from xgen.data.curate.classify.bands import NUM_BINS, Bands, count_scores
from xgen.data.curate.frequency import CopyTable
from xgen.data.curate.report_model import Frequency
from xgen.data.curate.steps import results
from xgen.data.curate.steps.base import Context, Item
from xgen.data.curate.steps.copy_table import copy_table
from xgen.data.curate.steps.folders import write_json
from xgen.data.curate.steps.ledger import read_facts
from xgen.data.curate.steps.tables import table_of
from xgen.data.errors import StoreError
from xgen.data.writer import MAX_NAMES

NAMES_FILE, KEPT_FILE = "names.json", "kept.bin"
UNJUDGED = 9  # the band of documents that no model was asked about: no mixture leaves them out for their quality
_COLUMNS = ("number", "domain", "score", "size", "num_tokens")


class Names(BaseModel):
    """names.json: what the numbers in arrays stand for; edges of bands by domain; the table of frequencies; documents
    of each unit."""

    model_config = ConfigDict(frozen=True)

    domains: tuple[str, ...]
    origins: tuple[tuple[str, str], ...]  # source and licence
    bands: dict[str, tuple[float, ...]]
    frequency: Frequency
    documents: tuple[int, ...]


@dataclass(frozen=True)
class Unit:
    """The documents of a unit, and where they are in its tokens.bin."""

    documents: Documents
    num_bytes: NDArray[np.int64]
    begins: NDArray[np.int64]


@dataclass(frozen=True)
class Kept:
    """What `select` kept; `names` follow from all units."""

    context: Context
    names: Names

    @classmethod
    def open(cls, context: Context) -> Kept:
        item = names_item(context)
        context.need([item], "balance")
        return cls(context, Names.model_validate_json((item.folder / NAMES_FILE).read_bytes()))

    def parts(self, rule: Rule | None = None) -> Iterator[Documents]:
        """All documents, by unit; their sources are left at 0."""
        for number in range(len(self.names.documents)):
            table = read_table(self.context, number, _COLUMNS)
            if rule is not None:
                table = table.filter(pyarrow.array(rule(table["number"].to_numpy())))
            if len(table):
                yield self._documents(table, np.zeros(len(table), dtype=np.uint32))

    def unit(self, number: int) -> Unit:
        table = read_table(self.context, number, (*_COLUMNS, "source", "licence", "bytes", "begin"))
        codes, pairs = origins_of(table)
        origins = np.array([self._origins[pair] for pair in pairs], dtype=np.uint32)[codes]
        return Unit(self._documents(table, origins), table["bytes"].to_numpy(), table["begin"].to_numpy())

    def _documents(self, table: pyarrow.Table, origins: NDArray[np.uint32]) -> Documents:
        codes, names = encoded(table["domain"])
        scores, sizes = table["score"].to_numpy(), table["size"].to_numpy()
        bands = np.full(len(table), UNJUDGED, dtype=np.uint8)
        for number, name in enumerate(names):
            own = np.flatnonzero((codes == number) & ~np.isnan(scores))
            if len(own):
                bands[own] = Bands(self.names.bands[name])(scores[own])
        domains = np.array([self._domains[name] for name in names], dtype=np.uint16)[codes]
        numbers, num_tokens = table["number"].to_numpy(), table["num_tokens"].to_numpy()
        return Documents(numbers, num_tokens, domains, origins, bands, sizes, self._table(sizes))

    @cached_property
    def _domains(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names.domains)}

    @cached_property
    def _origins(self) -> dict[tuple[str, str], int]:
        return {origin: number for number, origin in enumerate(self.names.origins)}

    @cached_property
    def _table(self) -> CopyTable:
        return CopyTable.parse(self.names.frequency.table)


def names_item(context: Context) -> Item:
    return Item("names", context.work / "balance" / ".names", context.recipes["balance"])


def write_names(context: Context, folder: Path, tick: Callable[[int], None]) -> None:
    """Look at all units. kept.bin has a bit for each document that was read, from a new byte on in each unit: whether
    it was kept."""
    # Also those of which nothing was kept: a mixture may name them, and is told that they have no text.
    domains = domains_read(context)
    scores = {name: np.zeros(NUM_BINS, dtype=np.int64) for name in domains}
    origins: set[tuple[str, str]] = set()
    documents = []
    frequency, table = copy_table(context)
    steps = np.zeros(len(table.starts), dtype=np.int64)
    with (folder / KEPT_FILE).open("wb") as kept:
        for number in range(len(context.plan.units)):
            tick(0)
            columns = read_table(context, number, (*_COLUMNS, "source", "licence"))
            documents.append(len(columns))
            first, last = context.begins[number : number + 2].tolist()
            flags = np.zeros(last - first, dtype=np.bool_)
            flags[(columns["number"].to_numpy() - np.uint64(first)).astype(np.int64)] = True
            kept.write(np.packbits(flags).tobytes())
            origins.update(origins_of(columns)[1])
            steps += np.bincount(table.step(columns["size"].to_numpy()), minlength=len(steps))
            codes, names = encoded(columns["domain"])
            values, weights = columns["score"].to_numpy(), columns["num_tokens"].to_numpy()
            for code, name in enumerate(names):
                own = np.flatnonzero((codes == code) & ~np.isnan(values))
                scores[name] += count_scores(values[own], weights[own])
    if not sum(documents):
        raise StoreError(context.work / "select", "no document was kept", "look at the filters' thresholds")
    if len(origins) > MAX_NAMES:
        what = f"there are {len(origins):,}, and a store knows {MAX_NAMES:,}"
        raise StoreError("sources", what, "name collections, not single documents: inputs[].source")
    found = Names(
        domains=tuple(domains),
        origins=tuple(sorted(origins)),
        bands={name: Bands.fit(counts).edges for name, counts in scores.items() if counts.any()},
        frequency=frequency.model_copy(update={"documents": tuple(steps.tolist())}),
        documents=tuple(documents),
    )
    write_json(folder / NAMES_FILE, found)


def domains_read(context: Context) -> list[str]:
    names = set[str]()
    for one in context.units_of("tag"):
        names |= read_facts(one.folder).kept.get("read", {}).keys()
    return sorted(names)


def read_table(context: Context, unit: int, columns: Sequence[str]) -> pyarrow.Table:
    return table_of(context.folder("select", unit) / results.TABLE_FILE, columns)


def encoded(column: pyarrow.ChunkedArray) -> tuple[NDArray[Any], list[str]]:
    """A column of names: of each row the place of its name in the list."""
    found = column.combine_chunks().dictionary_encode()
    return found.indices.to_numpy(), found.dictionary.to_pylist()


def origins_of(table: pyarrow.Table) -> tuple[NDArray[np.int64], list[tuple[str, str]]]:
    """Of each row the place of its source and licence in the list of those that there are."""
    source, sources = encoded(table["source"])
    licence, licences = encoded(table["licence"])
    code = source.astype(np.int64) * len(licences) + licence
    present = np.flatnonzero(np.bincount(code, minlength=len(sources) * len(licences)))
    place = np.zeros(len(sources) * len(licences), dtype=np.int64)
    place[present] = np.arange(len(present))
    pairs = [(sources[pair // len(licences)], licences[pair % len(licences)]) for pair in present.tolist()]
    return place[code], pairs
