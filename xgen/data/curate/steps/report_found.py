"""What the report says of duplicates, evaluation leaks and shared lines."""

from __future__ import annotations

import numpy as np

from xgen.data.curate.decontaminate import Index, leaks_by_set
from xgen.data.curate.report_model import CommonLine, Dedup, EvaluationLeaks, Lines, SizeBin
from xgen.data.curate.steps import results
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.ledger import Facts
from xgen.data.curate.steps.lines import common_lines, most_common
from xgen.data.curate.steps.tag import geometry_of
from xgen.data.curate.tally import SIZE_BINS


def duplicates(context: Context) -> Dedup:
    geometry = geometry_of(context.job)
    folder = context.work / "cluster"
    state = np.load(folder / results.STATE_FILE, mmap_mode="r")
    sizes, counts, _ = np.load(folder / results.REMOVALS_FILE)
    matched = context.buckets_of("match", context.recipes["match"])
    bins = np.searchsorted(np.array(SIZE_BINS), sizes, side="right") - 1
    clusters = np.bincount(bins, weights=counts, minlength=len(SIZE_BINS)).astype(np.int64)
    documents = np.bincount(bins, weights=counts * sizes, minlength=len(SIZE_BINS)).astype(np.int64)
    states = np.bincount(state, minlength=6)
    return Dedup(
        ngram=geometry.ngram,
        bands=geometry.bands,
        rows=geometry.rows,
        threshold=geometry.similarity,
        curve=tuple((step / 50, geometry.probability(step / 50)) for step in range(51)),
        exact=int(states[results.EXACT]),
        near=int(states[results.NEAR]),
        earlier=int(states[results.EARLIER]),
        unplaced=sum(int(np.load(one.folder / results.UNPLACED_FILE)) for one in matched),
        clusters=int(counts.sum()),
        largest=int(sizes.max(initial=0)),
        sizes=tuple(
            SizeBin(size=size, clusters=number, documents=total)
            for size, number, total in zip(SIZE_BINS, clusters.tolist(), documents.tolist(), strict=True)
        ),
    )


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
