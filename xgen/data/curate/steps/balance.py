"""balance: copies of each document by its frequency, and for each mixture the exact plan under its budget, with the
order of all copies.

The item `documents` has all that was kept as arrays; of each mixture `order.npy` lists documents, one a copy, by their
places in the store, `bounds.npy` says where each stretch of it begins, and `cuts.npy` [cuts, 2] which places of `order`
hold the beginning of a document only, and how many tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from xgen.data.curate.balance import Balance, Fixed, Temperature, UniMax
from xgen.data.curate.budget import Documents, Plan, Target, plan
from xgen.data.curate.classify.bands import Bands, count_scores
from xgen.data.curate.frequency import FINEWEB2, ONCE, CopyTable
from xgen.data.curate.longdocs import LongShare, plan_long
from xgen.data.curate.rehydrate import Removals, estimate
from xgen.data.curate.report_model import Frequency, PlanRow, Quota, RateBin
from xgen.data.curate.spread import places, stretch_of
from xgen.data.curate.steps import results
from xgen.data.curate.steps.base import Context, Item
from xgen.data.curate.steps.folders import fingerprint
from xgen.data.curate.steps.ledger import FACTS_FILE, Facts
from xgen.data.curate.tally import tally
from xgen.data.errors import StoreError
from xgen.data.writer import MAX_NAMES
from xgen.spec.curate import Mixture

COLUMNS = ("numbers", "num_tokens", "domains", "origins", "bands", "sizes", "num_bytes", "units", "begins", "copies")
NAMES_FILE, PLAN_FILE = "names.json", "plan.json"
ORDER_FILE, BOUNDS_FILE, CUTS_FILE, COPIES_FILE = "order.npy", "bounds.npy", "cuts.npy", "copies.npy"
UNJUDGED = 9  # the band of documents that no model was asked about: no mixture leaves them out for their quality
# Tokens of a stretch of a store, which is written at once; a small store has several all the same.
_Name = TypeVar("_Name", str, tuple[str, str])
_STRETCH_TOKENS, _SMALL_STRETCH, _FEW = 1 << 26, 1 << 17, 16


class Names(BaseModel):
    """names.json: what the numbers in the arrays stand for; edges of bands by domain; the table of frequencies."""

    model_config = ConfigDict(frozen=True)

    domains: tuple[str, ...]
    origins: tuple[tuple[str, str], ...]  # source and licence
    bands: dict[str, tuple[float, ...]]
    frequency: Frequency


class MixturePlan(BaseModel):
    """plan.json of a mixture."""

    model_config = ConfigDict(frozen=True)

    name: str
    budget: int
    planned: int
    documents: int
    quotas: tuple[Quota, ...]
    rows: tuple[PlanRow, ...]
    copies: dict[int, int]  # documents with so many copies
    weights: dict[str, int]
    unmet: tuple[str, ...]


class BalanceStep:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._selected = context.units_of("select")
        context.need(self._selected, "select")

    def items(self) -> Sequence[Item]:
        return [documents_item(self._context), *mixture_items(self._context).values()]

    def write(self, item: Item, folder: Path, tick: Callable[[int], None]) -> None:
        tick(0)
        if item.name == "documents":
            self._write_documents(folder)
        else:
            self._write_mixture(item.name, self._context.job.mixtures[item.name], folder)

    def _write_documents(self, folder: Path) -> None:
        columns, names, scores = self._read()
        if not len(columns["numbers"]):
            raise StoreError(self._context.work / "select", "no document was kept", "look at the filters' thresholds")
        bands: dict[str, tuple[float, ...]] = {}
        columns["bands"] = np.full(len(scores), UNJUDGED, dtype=np.uint8)
        for number, name in enumerate(names[0]):
            own = (columns["domains"] == number) & ~np.isnan(scores)
            if own.any():
                fitted = Bands.fit(count_scores(scores[own], columns["num_tokens"][own]))
                columns["bands"][own] = fitted(scores[own])
                bands[name] = fitted.edges
        frequency, table = self._frequency(columns["sizes"])
        columns["copies"] = table(columns["sizes"])
        for name in COLUMNS:
            np.save(folder / f"{name}.npy", columns[name])
        found = Names(domains=names[0], origins=names[1], bands=bands, frequency=frequency)
        (folder / NAMES_FILE).write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def _read(
        self,
    ) -> tuple[dict[str, NDArray[Any]], tuple[tuple[str, ...], tuple[tuple[str, str], ...]], NDArray[np.float32]]:
        """All tables, by number; domains and origins are numbered in the order of their names."""
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in COLUMNS[:-1] if name != "bands"}
        scores: list[NDArray[np.float32]] = []
        # Also those of which nothing was kept: a mixture may name them, and is told that they have no text.
        domains = {name: number for number, name in enumerate(self._domains_read())}
        origins: dict[tuple[str, str], int] = {}
        for unit, one in enumerate(self._selected):
            with pyarrow.memory_map(str(one.folder / results.TABLE_FILE)) as file:
                table = pyarrow.ipc.open_file(file).read_all()
            parts["numbers"].append(table["number"].to_numpy())
            parts["num_tokens"].append(table["num_tokens"].to_numpy())
            parts["sizes"].append(table["size"].to_numpy())
            parts["num_bytes"].append(table["bytes"].to_numpy())
            parts["begins"].append(table["begin"].to_numpy())
            parts["units"].append(np.full(table.num_rows, unit, dtype=np.uint32))
            scores.append(table["score"].to_numpy())
            parts["domains"].append(_numbered(domains, table["domain"]))
            parts["origins"].append(_numbered(origins, table["source"], table["licence"]))
        columns = {name: np.concatenate(some) for name, some in parts.items()}
        if len(origins) > MAX_NAMES:
            what = f"there are {len(origins):,}, and a store knows {MAX_NAMES:,}"
            raise StoreError("sources", what, "name collections, not single documents: inputs[].source")
        columns["domains"], domain_names = _by_name(columns["domains"], domains, np.uint16)
        columns["origins"], pairs = _by_name(columns["origins"], origins, np.uint32)
        return columns, (domain_names, pairs), np.concatenate(scores)

    def _domains_read(self) -> list[str]:
        names = set[str]()
        for one in self._context.units_of("tag"):
            names |= Facts.model_validate_json((one.folder / FACTS_FILE).read_bytes()).kept.get("read", {}).keys()
        return sorted(names)

    def _frequency(self, sizes: NDArray[np.uint32]) -> tuple[Frequency, CopyTable]:
        spec = self._context.job.frequency
        bins: tuple[RateBin, ...] = ()
        rate, note = None, ""
        match spec.rule:
            case "fineweb2":
                table = FINEWEB2
            case "table":
                table = CopyTable.parse(spec.table)
            case "none":
                table = ONCE
            case "rehydrate":
                found = estimate(self._removals(), spec.max_copies, spec.min_count)
                table, rate, note = found.table, found.rate, found.note
                bins = tuple(
                    RateBin(
                        size=one.start, documents=one.count, removed=one.removed, rate=one.rate, low=one.low,
                        high=one.high, copies=one.copies,
                    )
                    for one in found.bins
                )  # fmt: skip
        documents = np.bincount(table.step(sizes), minlength=len(table.starts)).tolist()
        about = Frequency(
            rule=spec.rule, table=table.as_dict(), documents=tuple(documents), bins=bins, rate=rate, note=note
        )
        return about, table

    def _removals(self) -> Removals:
        """By the filters, and by the second model."""
        sizes, counts, removed = np.load(self._context.work / "cluster" / results.REMOVALS_FILE)
        later = np.zeros(len(sizes), dtype=np.int64)
        for one in self._selected:
            facts = Facts.model_validate_json((one.folder / FACTS_FILE).read_bytes())
            for size, number in facts.counts.get("removed", {}).items():
                later[np.searchsorted(sizes, int(size))] += number
        return Removals(sizes, counts, removed + later)

    def _write_mixture(self, name: str, spec: Mixture, folder: Path) -> None:
        columns, names = read_documents(self._context)
        documents = documents_of(columns, names)
        copies = columns["copies"]
        target = Target(name, spec.tokens, _balance(spec), spec.max_epochs, spec.max_epochs_of, spec.min_band)
        seed = self._context.job.seed
        planned = (
            plan_long(documents, copies, target, LongShare(spec.long.min_tokens, spec.long.share), seed)
            if spec.long
            else plan(documents, copies, target, seed)
        )
        document, copy, place = places(documents.numbers, planned.copies, seed)
        order = np.argsort(place, kind="stable")
        num_stretches = stretches(planned.num_tokens)
        bounds = np.searchsorted(stretch_of(place[order], num_stretches), np.arange(num_stretches + 1))
        np.save(folder / ORDER_FILE, document[order].astype(np.int64))
        np.save(folder / BOUNDS_FILE, bounds.astype(np.int64))
        np.save(folder / COPIES_FILE, planned.copies)
        np.save(folder / CUTS_FILE, _cuts(planned, document[order], copy[order]))
        self._write_plan(folder, planned, documents)

    def _write_plan(self, folder: Path, planned: Plan, documents: Documents) -> None:
        quotas = tuple(
            Quota(
                domain=one.domain, part=one.part, documents=one.num_documents, supply=one.supply, cap=one.cap,
                wanted=one.wanted, tokens=one.tokens, epochs=one.epochs,
            )
            for one in planned.quotas
        )  # fmt: skip
        rows = tuple(
            PlanRow(
                domain=one.domain, source=one.source, band=one.band, size=one.size, documents=one.num_documents,
                tokens=one.num_tokens, taken=one.planned_documents, copies=one.planned_copies,
                planned=one.planned_tokens,
            )
            for one in tally(documents, planned)
        )  # fmt: skip
        numbers, counts = np.unique(planned.copies, return_counts=True)
        about = MixturePlan(
            name=planned.name,
            budget=planned.budget,
            planned=planned.num_tokens,
            documents=int((planned.copies > 0).sum()),
            quotas=quotas,
            rows=rows,
            copies=dict(zip(numbers.tolist(), counts.tolist(), strict=True)),
            weights=planned.weights,
            unmet=planned.unmet,
        )
        (folder / PLAN_FILE).write_text(about.model_dump_json(indent=1) + "\n", encoding="utf-8")


def documents_item(context: Context) -> Item:
    return Item("documents", context.work / "balance" / ".documents", context.recipes["balance"])


def mixture_items(context: Context) -> dict[str, Item]:
    """An item for each mixture, by name."""
    balance = context.recipes["balance"]
    return {
        name: Item(name, context.work / "balance" / name, fingerprint(balance, name, mixture))
        for name, mixture in context.job.mixtures.items()
    }


def read_documents(context: Context) -> tuple[dict[str, NDArray[Any]], Names]:
    """The arrays of all documents, mapped."""
    folder = documents_item(context).folder
    names = Names.model_validate_json((folder / NAMES_FILE).read_bytes())
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in COLUMNS}, names


def documents_of(columns: dict[str, NDArray[Any]], names: Names) -> Documents:
    return Documents(
        columns["numbers"],
        columns["num_tokens"],
        columns["domains"],
        columns["origins"],
        columns["bands"],
        columns["sizes"],
        names.domains,
        [source for source, _ in names.origins],
    )


def stretches(num_tokens: int) -> int:
    """In how many pieces a store is written: by its size alone."""
    few = min(_FEW, -(-num_tokens // _SMALL_STRETCH))
    return max(1, few, -(-num_tokens // _STRETCH_TOKENS))


def _balance(spec: Mixture) -> Balance:
    if spec.balance.weights:
        return Fixed(spec.balance.weights)
    return UniMax() if spec.balance.temperature is None else Temperature(spec.balance.temperature)


def _cuts(planned: Plan, document: NDArray[np.int64], copy: NDArray[np.uint32]) -> NDArray[np.int64]:
    """[cuts, 2]: places of last copies that are cut, and their tokens."""
    found = []
    for number, tokens in planned.cuts.items():
        last = np.flatnonzero((document == number) & (copy == planned.copies[number] - 1))
        found.append((int(last[0]), tokens))
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _numbered(numbers: dict[Any, int], *columns: pyarrow.ChunkedArray) -> NDArray[np.int64]:
    """The number of each row's name (of several columns: of their tuple), new ones being added to `numbers`."""
    code = np.zeros(len(columns[0]), dtype=np.int64)
    names: list[list[str]] = []
    for column in columns:
        encoded = column.combine_chunks().dictionary_encode()
        code = code * max(1, len(encoded.dictionary)) + encoded.indices.to_numpy(zero_copy_only=False)
        names.append(encoded.dictionary.to_pylist())
    found, inverse = np.unique(code, return_inverse=True)
    own = np.zeros(len(found), dtype=np.int64)
    for at, value in enumerate(found.tolist()):
        parts: list[str] = []
        for some in reversed(names):
            value, place = divmod(value, max(1, len(some)))  # noqa: PLW2901
            parts.insert(0, some[place])
        key = parts[0] if len(columns) == 1 else tuple(parts)
        own[at] = numbers.setdefault(key, len(numbers))
    return own[inverse]


def _by_name(
    values: NDArray[np.int64], numbers: Mapping[_Name, int], kind: type
) -> tuple[NDArray[Any], tuple[_Name, ...]]:
    """Numbers in the order of the names, and those."""
    names = sorted(numbers)
    moved: NDArray[Any] = np.zeros(len(names) + 1, dtype=kind)
    moved[[numbers[name] for name in names]] = np.arange(len(names))
    return moved[values], tuple(names)
