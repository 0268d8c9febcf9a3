"""shuffle: stretches of the stores: the copies whose places lie in a stretch, in their order, as a unit of a store; and
buckets of the index, where one is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xgen.data.assemble import is_whole
from xgen.data.curate.spread import apart
from xgen.data.curate.steps import results
from xgen.data.curate.steps.balance import (
    BOUNDS_FILE,
    CUTS_FILE,
    ORDER_FILE,
    documents_item,
    mixture_items,
    read_documents,
)
from xgen.data.curate.steps.base import Context, Item
from xgen.data.curate.steps.earlier import INDEXED, index_file
from xgen.data.curate.steps.folders import fingerprint
from xgen.data.curate.steps.match import bucket_records
from xgen.data.store import token_type
from xgen.data.tokenizer import Tokenizer
from xgen.data.writer import UnitWriter

INDEX = "index"  # its folder
_MAPPED = 1024  # files of tokens at once


class Shuffle:
    def __init__(self, context: Context) -> None:
        self._context = context
        context.need([documents_item(context), *mixture_items(context).values()], "balance")
        self._columns, self._names = read_documents(context)
        self._mixtures: dict[str, tuple[NDArray[Any], ...]] = {}
        self._maps: dict[int, NDArray[Any]] = {}

    def items(self) -> Sequence[Item]:
        return [one for some in stretch_items(self._context).values() for one in some] + index_items(self._context)

    def write(self, item: Item, folder: Path, tick: Callable[[int], None]) -> None:
        name, _, stretch = item.name.partition("/")
        if name == INDEX:
            self._write_index(int(stretch), folder)
            tick(0)
            return
        order, bounds, cuts = self._mixture(name)
        first, last = int(bounds[int(stretch)]), int(bounds[int(stretch) + 1])
        documents = np.array(order[first:last])
        cut_at = {int(place) - first: int(tokens) for place, tokens in cuts if first <= place < last}
        domains = self._columns["domains"][documents]
        with ExitStack() as stack:
            writer = UnitWriter(folder, stack)
            for number, domain in enumerate(self._names.domains):
                places = np.flatnonzero(domains == number)
                for place in places[apart(documents[places])].tolist() if len(places) else ():
                    tick(self._add(writer, domain, int(documents[place]), cut_at.get(place)))
            writer.close()

    def _write_index(self, bucket: int, folder: Path) -> None:
        """The records of the documents that were kept, numbered among themselves."""
        begins = self._context.begins
        numbers = np.asarray(self._columns["numbers"])
        for section in INDEXED:
            records = np.concatenate(list(bucket_records(self._context, begins, bucket, section)))
            places = np.minimum(np.searchsorted(numbers, records[:, 1]), len(numbers) - 1)
            kept = numbers[places] == records[:, 1]
            records = records[kept]
            records[:, 1] = places[kept]
            records = records[np.argsort(records[:, 0], kind="stable")]
            records.astype("<u8", copy=False).tofile(index_file(folder, section, bucket))

    def _add(self, writer: UnitWriter, domain: str, document: int, cut: int | None) -> int:
        """Write a copy; returns the bytes of its text."""
        columns = self._columns
        begin, count = int(columns["begins"][document]), int(columns["num_tokens"][document])
        tokens = self._tokens(int(columns["units"][document]))[begin : begin + count]
        num_bytes = int(columns["num_bytes"][document])
        if cut is not None:  # it ends as all do
            num_bytes = num_bytes * (cut - 1) // max(1, count - 1)
            tokens, count = np.append(tokens[: cut - 1], tokens[-1:]), cut
        origin = self._names.origins[int(columns["origins"][document])]
        writer.add(domain, origin, tokens.tobytes(), count, num_bytes)
        return num_bytes

    def _mixture(self, name: str) -> tuple[NDArray[Any], ...]:
        if name not in self._mixtures:
            folder = mixture_items(self._context)[name].folder
            self._mixtures[name] = tuple(
                np.load(folder / file, mmap_mode="r") for file in (ORDER_FILE, BOUNDS_FILE, CUTS_FILE)
            )
        return self._mixtures[name]

    def _tokens(self, unit: int) -> NDArray[Any]:
        if unit not in self._maps:
            if len(self._maps) == _MAPPED:
                self._maps.clear()
            file = self._context.folder("select", unit) / results.TOKENS_FILE
            self._maps[unit] = np.memmap(file, dtype=self._kind, mode="r")
        return self._maps[unit]

    @cached_property
    def _kind(self) -> np.dtype[Any]:
        vocabulary = Tokenizer.load(Path(self._context.job.tokenizer)).vocab_size
        return np.dtype(token_type(vocabulary)).newbyteorder("<")


def stretch_items(context: Context) -> dict[str, list[Item]]:
    """By mixture: an item for each stretch of its store."""
    found = {}
    for name, one in mixture_items(context).items():
        bounds = np.load(one.folder / BOUNDS_FILE, mmap_mode="r")
        found[name] = [
            Item(
                f"{name}/{number:05}", context.work / "shuffle" / name / f"{number:05}", fingerprint(one.recipe, number)
            )
            for number in range(len(bounds) - 1)
        ]
    return found


def index_items(context: Context) -> list[Item]:
    """An item for each bucket of the index; none where no index is wanted."""
    if not context.job.dedup.index:
        return []
    recipe = fingerprint("index", context.recipes["select"])
    return [
        Item(f"{INDEX}/{number:04}", context.work / "shuffle" / INDEX / f"{number:04}", fingerprint(recipe, number))
        for number in range(context.plan.num_buckets)
    ]


def store_folder(context: Context, mixture: str) -> Path:
    """Where the store of a mixture is put together."""
    return context.work / "assemble" / mixture


def is_there(context: Context, item: Item) -> bool:
    """Whether the parts of a stretch are where they were written, or where `assemble` has put them."""
    if item.name.startswith(f"{INDEX}/"):
        return True
    return is_whole(item.folder, store_folder(context, item.name.partition("/")[0]))
