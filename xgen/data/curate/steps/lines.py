"""lines and common: lines that many documents share, counted over those that were chosen; a step by units, and one by
ranges of hashes.

After `cluster`, for a text with a hundred duplicates would else be a hundred documents that share its lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow
from numpy.typing import NDArray

from xgen.data.curate.filters.take import take_texts
from xgen.data.curate.lines import LineCounts, LineRule, count_lines, frequent, merge_counts
from xgen.data.curate.steps import results
from xgen.data.curate.steps.base import Context, Item
from xgen.data.curate.steps.tag import DOCS_FILE
from xgen.data.curate.texts import Texts
from xgen.spec.curate import CommonLines

HASHES_FILE, COUNTS_FILE, FREQUENT_FILE = "hashes.npy", "counts.npy", "frequent.npy"
NUM_LINES = 20  # that the report shows


def rule_of(spec: CommonLines) -> LineRule:
    return LineRule(spec.unit, spec.min_words, spec.max_documents)


def chosen_batches(context: Context, number: int) -> Iterator[tuple[pyarrow.RecordBatch, Texts]]:
    """The documents of a unit that stay of their clusters, with their texts."""
    begins = context.begins
    state = np.load(context.work / "cluster" / results.STATE_FILE, mmap_mode="r")[begins[number] : begins[number + 1]]
    with pyarrow.memory_map(str(context.folder("tag", number) / DOCS_FILE)) as file:
        docs = pyarrow.ipc.open_file(file)
        for place in range(docs.num_record_batches):
            batch = docs.get_batch(place)
            rows = np.flatnonzero(state[batch.column("row").to_numpy()] == results.CHOSEN)
            if len(rows):
                yield batch.take(pyarrow.array(rows)), take_texts(Texts.from_arrow(batch.column("text")), rows)


def common_lines(context: Context) -> LineCounts:
    """The lines to cut, by their hashes. Raises StoreError where they are not known yet."""
    found = context.buckets_of("common", context.recipes["lines"])
    context.need(found, "common")
    hashes, counts = ([np.load(one.folder / file) for one in found] for file in (FREQUENT_FILE, COUNTS_FILE))
    return LineCounts(np.concatenate(hashes), np.concatenate(counts))


def most_common(lines: LineCounts, number: int = NUM_LINES) -> NDArray[np.int64]:
    """Places of the lines that most documents have."""
    return np.lexsort([lines.hashes, -lines.num_documents.astype(np.int64)])[:number]


class Lines:
    def __init__(self, context: Context) -> None:
        self._context = context
        context.need([context.single("cluster")], "cluster")
        assert context.job.dedup.lines is not None
        self._spec = context.job.dedup.lines

    def items(self) -> Sequence[Item]:
        return self._context.units_of("lines")

    def write(self, item: Item, folder: Path, tick: Callable[[int], None]) -> None:
        parts = [LineCounts(np.zeros(0, np.uint64), np.zeros(0, np.uint32))]
        for batch, texts in chosen_batches(self._context, int(item.name)):
            counted = np.flatnonzero(
                [domain not in self._spec.except_domains for domain in batch.column("domain").to_pylist()]
            )
            parts.append(count_lines(take_texts(texts, counted), rule_of(self._spec)))
            tick(texts.num_bytes)
        merged = merge_counts(parts)
        np.save(folder / HASHES_FILE, merged.hashes)
        np.save(folder / COUNTS_FILE, merged.num_documents)


class Common:
    def __init__(self, context: Context) -> None:
        self._context = context
        context.need(context.units_of("lines"), "lines")
        assert context.job.dedup.lines is not None
        self._rule = rule_of(context.job.dedup.lines)

    def items(self) -> Sequence[Item]:
        return self._context.buckets_of("common", self._context.recipes["lines"])

    def write(self, item: Item, folder: Path, tick: Callable[[int], None]) -> None:
        num_buckets, bucket = self._context.plan.num_buckets, int(item.name)
        first, last = ((place << 64) // num_buckets for place in (bucket, bucket + 1))
        parts = []
        for one in self._context.units_of("lines"):
            hashes = np.load(one.folder / HASHES_FILE, mmap_mode="r")
            part = LineCounts(hashes, np.load(one.folder / COUNTS_FILE, mmap_mode="r")).within(first, last)
            parts.append(LineCounts(np.array(part.hashes), np.array(part.num_documents)))
            tick(0)
        found = frequent(merge_counts(parts), self._rule)
        np.save(folder / FREQUENT_FILE, found.hashes)
        np.save(folder / COUNTS_FILE, found.num_documents)
