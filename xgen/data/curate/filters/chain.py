"""Filters one after the other: each sees what the ones before it kept, as they left it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.filters.c4 import C4Filter
from xgen.data.curate.filters.fineweb import FineWebFilter
from xgen.data.curate.filters.gopher import GopherQualityFilter
from xgen.data.curate.filters.language import LanguageFilter
from xgen.data.curate.filters.pii import PiiFilter
from xgen.data.curate.filters.repetition import GopherRepetitionFilter
from xgen.data.curate.filters.rules import LineFilter, UrlFilter
from xgen.data.curate.filters.thresholds import (
    C4,
    FineWeb,
    GopherQuality,
    GopherRepetition,
    Language,
    Lines,
    Pii,
    Thresholds,
    Urls,
)
from xgen.data.curate.filters.trace import KEPT, Batch, Filter, Trace
from xgen.data.curate.texts import Texts


@dataclass(frozen=True)
class Passage:
    """What became of a batch.

    `reasons[reason[i]]` names the rule that dropped document i, as "filter.rule". `measures` has a column for each
    value of each filter, "filter.measure"; not a number for documents that the filter did not see any more.
    """

    kept: NDArray[np.bool_]
    texts: Texts  # of the documents kept, changed by the filters that change text
    reasons: tuple[str, ...]
    reason: NDArray[np.int16]  # [documents], KEPT where none
    measures: dict[str, NDArray[np.float32]]
    labels: dict[str, NDArray[np.str_]]  # "filter.label", empty for documents that the filter did not see any more
    traces: tuple[tuple[NDArray[np.int64], Trace], ...]  # of each filter: numbers of the documents that it saw

    def why(self, number: int) -> str:
        """Of one document: `gopher_quality.min_words: words = 12 < 50`, or empty where it was kept."""
        for seen, trace in self.traces:
            row = int(np.searchsorted(seen, number))
            if row < len(seen) and seen[row] == number and trace.dropped_by[row] != KEPT:
                return trace.reason(row)
        return ""


def open_filters(thresholds: Iterable[Thresholds]) -> list[Filter]:
    """A filter for each, in their order. Raises StoreError for a model or a list that is not there."""
    return [_open(each) for each in thresholds]


def _open(thresholds: Thresholds) -> Filter:
    match thresholds:
        case GopherQuality():
            return GopherQualityFilter(thresholds)
        case GopherRepetition():
            return GopherRepetitionFilter(thresholds)
        case C4():
            return C4Filter(thresholds)
        case FineWeb():
            return FineWebFilter(thresholds)
        case Language():
            return LanguageFilter.open(thresholds)
        case Urls():
            return UrlFilter.open(thresholds)
        case Lines():
            return LineFilter.open(thresholds)
        case Pii():
            return PiiFilter(thresholds)


def run(filters: Sequence[Filter], batch: Batch) -> Passage:
    """The result for a document does not depend on the others in its batch."""
    size = len(batch)
    numbers = np.arange(size)
    reasons: list[str] = []
    reason = np.full(size, KEPT, dtype=np.int16)
    measures: dict[str, NDArray[np.float32]] = {}
    labels: dict[str, NDArray[np.str_]] = {}
    traces = []
    for each in filters:
        trace = each.check(batch)
        traces.append((numbers, trace))
        for name, values in trace.measures.items():
            column = np.full(size, np.nan, dtype=np.float32)
            column[numbers] = values
            measures[f"{trace.filter}.{name}"] = column
        for name, found in trace.labels.items():
            labels[f"{trace.filter}.{name}"] = np.zeros(size, dtype=found.dtype)
            labels[f"{trace.filter}.{name}"][numbers] = found
        lost = ~trace.kept
        reason[numbers[lost]] = trace.dropped_by[lost] + len(reasons)
        reasons += [f"{trace.filter}.{rule.name}" for rule in trace.rules]
        batch = (trace.changed or batch).take(trace.kept)
        numbers = numbers[trace.kept]
    return Passage(reason == KEPT, batch.texts, tuple(reasons), reason, measures, labels, tuple(traces))
