"""The filters of a spec, opened once a process, and applied to a batch by the domains of its documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from xgen.data.curate.filters.chain import open_filters, run
from xgen.data.curate.filters.take import take_texts
from xgen.data.curate.filters.thresholds import Thresholds
from xgen.data.curate.filters.trace import Batch, Filter, Trace
from xgen.data.curate.texts import Texts
from xgen.spec.curate import Curate, Filters

# FineWeb's order, after its lists of addresses and the language.
_ORDER = ("url", "language", "lines", "gopher_repetition", "gopher_quality", "c4", "fineweb", "pii")


@dataclass(frozen=True)
class Chain:
    """Filters for some domains; None: for all that no chain before it names."""

    domains: frozenset[str] | None
    filters: tuple[Filter, ...]


class AskedRule(BaseModel):
    """A rule of a filter as a document was held against it: `measure` is a column of trace.arrow."""

    model_config = ConfigDict(frozen=True)

    name: str
    measure: str
    least: float | None
    most: float | None


class ChainRules(BaseModel):
    """The rules for some domains, in their order; None: for all that no chain before names."""

    model_config = ConfigDict(frozen=True)

    domains: tuple[str, ...] | None
    rules: tuple[AskedRule, ...]


@dataclass(frozen=True)
class Filtered:
    """What became of a batch, by document; `texts` are those of the documents kept.

    `step` and `reason` name the filter and the rule that dropped a document ("" where it stays); `value` is what the
    rule measured and `bound` its threshold.
    """

    kept: NDArray[np.bool_]
    texts: Texts
    step: list[str]
    reason: list[str]
    value: NDArray[np.float64]
    bound: NDArray[np.float64]
    measures: dict[str, NDArray[np.float32]]
    language: list[str]
    passed: dict[str, NDArray[np.bool_]]  # by filter that ran: the documents that it kept
    cut: dict[str, NDArray[np.int64]]  # by filter that changed text: bytes that it cut out of each document
    masked: dict[str, int]  # personal data, by kind


class Chains:
    def __init__(self, job: Curate) -> None:
        """Raises StoreError for a model or a list that cannot be read."""
        pii: list[Thresholds] = [job.pii] if job.pii else []
        self._chains = [
            Chain(_frozen(one.domains), tuple(open_filters([*_thresholds(one), *pii]))) for one in job.filters
        ]
        self._chains.append(Chain(None, tuple(open_filters(pii))))
        probe = Batch(Texts.of(["a"]), [""])
        asked = [(chain, [each.check(probe) for each in chain.filters]) for chain in self._chains]
        traces = [trace for _, some in asked for trace in some]
        self.filters = tuple(name for name in _ORDER if any(trace.filter == name for trace in traces))
        self.measures = tuple(dict.fromkeys(f"{trace.filter}.{name}" for trace in traces for name in trace.measures))
        self.rules = tuple(
            ChainRules(domains=chain.domains and tuple(sorted(chain.domains)), rules=tuple(_asked(some)))
            for chain, some in asked
        )

    def __call__(self, texts: Texts, domains: Sequence[str], urls: Sequence[str]) -> Filtered:
        size = len(texts)
        kept = np.ones(size, dtype=np.bool_)
        step, reason, language = [""] * size, [""] * size, [""] * size
        value, bound = np.full(size, np.nan), np.full(size, np.nan)
        measures = {name: np.full(size, np.nan, dtype=np.float32) for name in self.measures}
        passed = {name: np.zeros(size, dtype=np.bool_) for name in self.filters}
        cut = {name: np.zeros(size, dtype=np.int64) for name in self.filters}
        masked: dict[str, int] = {}
        numbers: list[NDArray[np.int64]] = []
        parts: list[Texts] = []
        of_domain = {domain: self._chain_of(domain) for domain in set(domains)}
        chain_of = np.array([of_domain[domain] for domain in domains], dtype=np.int64)
        for place, chain in enumerate(self._chains):
            rows = np.flatnonzero(chain_of == place)
            if not len(rows):
                continue
            some = texts if len(rows) == size else take_texts(texts, rows)
            passage = run(chain.filters, Batch(some, [urls[row] for row in rows.tolist()]))
            for seen, trace in passage.traces:
                own, good = rows[seen], trace.kept
                passed[trace.filter][own[good]] = True
                for name, found in trace.measures.items():
                    measures[f"{trace.filter}.{name}"][own] = found
                for at in np.flatnonzero(~good).tolist():
                    rule = trace.rules[trace.dropped_by[at]]
                    row = int(own[at])
                    measured = float(trace.measures[rule.measure][at])
                    step[row], reason[row] = trace.filter, f"{trace.filter}.{rule.name}"
                    value[row], bound[row] = measured, rule.least if measured < rule.least else rule.most
                if trace.filter == "pii":
                    for name, found in trace.measures.items():
                        if name != "per_kb":
                            masked[name] = masked.get(name, 0) + int(found[good].sum())
                if "language" in trace.labels:
                    for at, label in enumerate(trace.labels["language"].tolist()):
                        language[int(own[at])] = label
            _differences(passage.traces, rows, np.diff(some.offsets), cut)
            kept[rows] = passage.kept
            numbers.append(rows[passage.kept])
            parts.append(passage.texts)
        joined = _in_order(numbers, parts)
        return Filtered(kept, joined, step, reason, value, bound, measures, language, passed, cut, masked)

    def _chain_of(self, domain: str) -> int:
        return next(i for i, chain in enumerate(self._chains) if chain.domains is None or domain in chain.domains)


def _differences(
    traces: Sequence[tuple[NDArray[np.int64], Trace]],
    rows: NDArray[np.int64],
    sizes: NDArray[np.int64],
    cut: dict[str, NDArray[np.int64]],
) -> None:
    """Bytes that each filter cut out of what it kept: what came in (`sizes`) less what went out."""
    for seen, trace in traces:
        good = seen[trace.kept]
        if trace.changed is None:
            continue
        after = np.diff(trace.changed.texts.offsets)[trace.kept]
        cut[trace.filter][rows[good]] = sizes[good] - after
        sizes[good] = after


def _asked(traces: Sequence[Trace]) -> Iterator[AskedRule]:
    for trace in traces:
        for rule in trace.rules:
            least, most = (bound if np.isfinite(bound) else None for bound in (rule.least, rule.most))
            name, measure = f"{trace.filter}.{rule.name}", f"{trace.filter}.{rule.measure}"
            yield AskedRule(name=name, measure=measure, least=least, most=most)


def _thresholds(spec: Filters) -> list[Thresholds]:
    every = (
        spec.url_lists,
        spec.language,
        spec.lines,
        spec.gopher_repetition,
        spec.gopher_quality,
        spec.c4,
        spec.fineweb,
    )
    return [each for each in every if each]


def _in_order(numbers: list[NDArray[np.int64]], parts: list[Texts]) -> Texts:
    """The texts of several chains, by the numbers of their documents."""
    if len(parts) == 1:
        return parts[0]
    data = np.concatenate([part.data for part in parts] or [np.zeros(0, np.uint8)])
    sizes = np.concatenate([np.diff(part.offsets) for part in parts] or [np.zeros(0, np.int64)])
    joined = Texts(data, np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]))
    order = np.argsort(np.concatenate(numbers or [np.zeros(0, np.int64)]), kind="stable")
    return take_texts(joined, order)


def _frozen(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
