"""What the report says of duplicates, evaluation leaks and shared lines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.decontaminate import Index, leaks_by_set
from xgen.data.curate.report_model import CommonLine, Dedup, EvaluationLeaks, Lines, SizeBin, Slice
from xgen.data.curate.steps import results
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.ledger import Facts
from xgen.data.curate.steps.lines import common_lines, most_common
from xgen.data.curate.steps.tag import geometry_of
from xgen.data.curate.tally import SIZE_BINS, size_bins

AT_ONCE = 1 << 24  # documents whose states are looked at together
_SLICES = 50  # of all documents, in the order of reading


def duplicates(context: Context) -> Dedup:
    geometry = geometry_of(context.job)
    folder = context.work / "cluster"
    state = np.load(folder / results.STATE_FILE, mmap_mode="r")
    sizes, counts, _ = np.load(folder / results.REMOVALS_FILE)
    matched = context.buckets_of("match", context.recipes["match"])
    bins = size_bins(sizes)
    clusters = np.bincount(bins, weights=counts, minlength=len(SIZE_BINS)).astype(np.int64)
    documents = np.bincount(bins, weights=counts * sizes, minlength=len(SIZE_BINS)).astype(np.int64)
    slices = [_slice(part) for part in np.array_split(state, _SLICES)]
    return Dedup(
        ngram=geometry.ngram,
        bands=geometry.bands,
        rows=geometry.rows,
        threshold=geometry.similarity,
        curve=tuple((step / 50, geometry.probability(step / 50)) for step in range(51)),
        exact=sum(one.exact for one in slices),
        near=sum(one.near for one in slices),
        earlier=sum(one.earlier for one in slices),
        slices=tuple(slices),
        unplaced=sum(int(np.load(one.folder / results.UNPLACED_FILE)) for one in matched),
        clusters=int(counts.sum()),
        largest=int(sizes.max(initial=0)),
        sizes=tuple(
            SizeBin(size=size, clusters=number, documents=total)
            for size, number, total in zip(SIZE_BINS, clusters.tolist(), documents.tolist(), strict=True)
        ),
    )


def _slice(state: NDArray[np.uint8]) -> Slice:
    """What became of some of the documents, in the order in which they were read."""
    counts = np.zeros(6, dtype=np.int64)
    for begin in range(0, len(state), AT_ONCE):
        counts += np.bincount(state[begin : begin + AT_ONCE], minlength=6)
    found = {"exact": results.EXACT, "near": results.NEAR, "earlier": results.EARLIER, "first": results.CHOSEN}
    return Slice(read=len(state), **{name: int(counts[what]) for name, what in found.items()})


def leaks(context: Context) -> tuple[EvaluationLeaks, ...]:
    if context.job.decontaminate is None:
        return ()
    index = Index.load(context.work / results.SEARCH_FILE)
    rows = np.concatenate([np.load(one.folder / results.LEAKS_FILE) for one in context.units_of("select")])
    return tuple(
        EvaluationLeaks(
            name=one.name, items=one.num_items, short=one.num_short, leaked=one.num_leaked, documents=one.num_documents
        )
        for one in leaks_by_set(index, rows[:, 0], rows[:, 1])
    )


def shared_lines(context: Context, selected: Facts) -> Lines | None:
    spec = context.job.dedup.lines
    if spec is None:
        return None
    common, counts = common_lines(context), selected.counts.get("common_lines", {})
    shown = [(int(common.hashes[at]), int(common.num_documents[at])) for at in most_common(common)]
    return Lines(
        unit=spec.unit,
        max_documents=spec.max_documents,
        frequent=len(common.hashes),
        cut=counts.get("cut", 0),
        bytes=counts.get("bytes", 0),
        documents=counts.get("documents", 0),
        samples=tuple(
            CommonLine(text=selected.lines[line], documents=number) for line, number in shown if line in selected.lines
        ),
    )
