"""shuffle: stretches of the stores: the copies that were dealt to a stretch, in their order, as a unit of a store; and
buckets of the index, where one is wanted.

A stretch is read and written in runs of so many tokens as memory holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xgen.data.assemble import is_whole
from xgen.data.curate.spread import apart
from xgen.data.curate.steps import results
from xgen.data.curate.steps.balance import mixture_items, read_mixture, stretches
from xgen.data.curate.steps.base import Context, Item
from xgen.data.curate.steps.deal import BOUNDS_FILE, COPIES_FILE, deal_items
from xgen.data.curate.steps.earlier import INDEXED, index_file
from xgen.data.curate.steps.folders import fingerprint
from xgen.data.curate.steps.kept import KEPT_FILE, Kept, names_item
from xgen.data.curate.steps.match import bucket_records
from xgen.data.errors import StoreError
from xgen.data.store import token_type
from xgen.data.tokenizer import Tokenizer
from xgen.data.writer import UnitWriter

INDEX = "index"  # its folder
_RUN_TOKENS = 1 << 29  # in memory at once
_AHEAD = 1 << 16  # bytes that are read at least: neighbours in a unit's tokens are neighbours in a store


class Shuffle:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._names = Kept.open(context).names
        self._dealt = deal_items(context)
        context.need([one for some in self._dealt.values() for one in some], "deal")

    def items(self) -> Sequence[Item]:
        return [one for some in stretch_items(self._context).values() for one in some] + index_items(self._context)

    def write(self, item: Item, folder: Path, tick: Callable[[int], None]) -> None:
        name, _, stretch = item.name.rpartition("/")
        if name == INDEX:
            self._write_index(int(stretch), folder, tick)
            return
        copies, units = self._copies(name, int(stretch), tick)
        runs = (np.cumsum(copies["num_tokens"], dtype=np.int64) - 1) // _RUN_TOKENS
        with ExitStack() as stack:
            writer = UnitWriter(folder, stack)
            for run in range(int(runs.max(initial=-1)) + 1):
                first, last = np.searchsorted(runs, [run, run + 1]).tolist()
                self._write_run(writer, copies[first:last], units[first:last], tick)
            writer.close()

    def _copies(self, mixture: str, stretch: int, tick: Callable[[int], None]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Those of a stretch in the order of their places, and the unit of each."""
        parts = []
        for item in self._dealt[mixture]:
            first, last = np.load(item.folder / BOUNDS_FILE, mmap_mode="r")[stretch : stretch + 2].tolist()
            parts.append(np.array(np.load(item.folder / COPIES_FILE, mmap_mode="r")[first:last]))
            tick(0)
        copies = np.concatenate(parts)
        units = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        order = np.argsort(copies["place"], kind="stable")
        return copies[order], units[order]

    def _write_run(
        self, writer: UnitWriter, copies: NDArray[Any], units: NDArray[Any], tick: Callable[[int], None]
    ) -> None:
        tokens, begins = self._tokens(copies, units, tick)
        for number, domain in enumerate(self._names.domains):
            own = np.flatnonzero(copies["domain"] == number)
            own = own[apart(copies["number"][own].astype(np.int64))]
            columns = (copies[name][own].tolist() for name in ("num_tokens", "num_bytes", "origin"))
            for begin, count, num_bytes, origin in zip(begins[own].tolist(), *columns, strict=True):
                content = tokens[begin : begin + count].tobytes()
                writer.add(domain, self._names.origins[origin], content, count, num_bytes)
                tick(num_bytes)

    def _tokens(
        self, copies: NDArray[Any], units: NDArray[Any], tick: Callable[[int], None]
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """All tokens of some copies, and where in them each begins. A unit is read from front to back."""
        ends = np.cumsum(copies["num_tokens"], dtype=np.int64)
        begins = ends - copies["num_tokens"]
        tokens = np.empty(int(ends[-1]), dtype=self._kind)
        order = np.lexsort((copies["begin"], units))
        for own in np.split(order, np.flatnonzero(np.diff(units[order])) + 1):
            path = self._context.folder("select", int(units[own[0]])) / results.TOKENS_FILE
            columns = (values[own].tolist() for values in (copies["begin"], begins, ends))
            with BufferedReader(FileIO(path), _AHEAD) as file:
                for there, begin, end in zip(*columns, strict=True):
                    file.seek(there * self._kind.itemsize)
                    into = tokens[begin:end]
                    if file.readinto(into.data) != into.nbytes:
                        raise StoreError(path, "is shorter than it was", "remove the work folder, and run it again")
            tick(0)
        tokens[ends - 1] = self._tokenizer.end_of_text  # a copy that is cut ends as all do
        return tokens, begins

    def _write_index(self, bucket: int, folder: Path, tick: Callable[[int], None]) -> None:
        """The records of the documents that were kept, numbered among themselves."""
        begins = self._context.begins
        bits = np.memmap(names_item(self._context).folder / KEPT_FILE, dtype=np.uint8, mode="r")
        num_bytes = np.concatenate([[0], np.cumsum(-(-np.diff(begins) // 8))])
        before = np.concatenate([[0], np.cumsum(self._names.documents)])
        for section in INDEXED:
            found = []
            for unit, records in enumerate(bucket_records(self._context, begins, bucket, section)):
                kept = np.unpackbits(bits[num_bytes[unit] : num_bytes[unit + 1]])
                rows = (records[:, 1] - np.uint64(begins[unit])).astype(np.int64)
                rank = np.cumsum(kept, dtype=np.int64)[rows] + (before[unit] - 1)
                records[:, 1] = rank.astype(np.uint64)
                found.append(records[kept[rows].astype(np.bool_)])
                tick(0)
            every = np.concatenate(found)
            every = every[np.argsort(every[:, 0], kind="stable")]
            every.astype("<u8", copy=False).tofile(index_file(folder, section, bucket))

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.load(Path(self._context.job.tokenizer))

    @cached_property
    def _kind(self) -> np.dtype[Any]:
        return np.dtype(token_type(self._tokenizer.vocab_size)).newbyteorder("<")


def stretch_items(context: Context) -> dict[str, list[Item]]:
    """By mixture: an item for each stretch of its store."""
    return {
        name: [
            Item(
                f"{name}/{number:05}", context.work / "shuffle" / name / f"{number:05}", fingerprint(one.recipe, number)
            )
            for number in range(stretches(read_mixture(context, name).planned))
        ]
        for name, one in mixture_items(context).items()
    }


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
