"""What a unit counted on its way through a step: sums that add up in any order, and samples chosen by a hash."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from xgen.data.curate.report_model import Count, Sample
from xgen.data.curate.texts import Texts
from xgen.data.readers import Bad

FACTS_FILE = "facts.json"
NUM_SAMPLES = 5  # of each reason
EXCERPT = 400  # bytes
SCORES = tuple(float(value) for value in np.linspace(-8, 8, 33))  # edges of the histograms of log-odds
_Rule = tuple[str, float | None]  # reason and threshold: domains may have thresholds of their own


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Drop(_Frozen):
    """What one rule of a step dropped under one threshold; samples with the rank of their hash, lowest first.

    `by_domain` has the bytes that the step was given of them: a step before it may have cut some out.
    """

    name: str
    bound: float | None
    by_domain: dict[str, Count]
    samples: tuple[tuple[int, Sample], ...]


class Facts(_Frozen):
    """facts.json. `kept` counts what passed a step, by step and domain, `cut` bytes that the step took out of that."""

    kept: dict[str, dict[str, Count]]
    cut: dict[str, dict[str, int]]
    drops: dict[str, tuple[Drop, ...]]  # by step
    counts: dict[str, dict[str, int]]  # whatever else adds up: languages, what was masked
    lines: dict[int, str]  # common lines that were cut, by their hashes
    quarantined: dict[str, tuple[int, tuple[str, ...]]]  # by reason: records, some places


class Ledger:
    """Sums while a unit is worked on."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
        self._cut: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._drops: dict[_Rule, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
        self._samples: dict[_Rule, list[tuple[int, Sample]]] = defaultdict(list)
        self._counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.lines: dict[int, str] = {}
        self._bad: dict[str, list[str]] = defaultdict(list)
        self._num_bad: dict[str, int] = defaultdict(int)

    def keep(self, step: str, domain: str, num_bytes: int, documents: int = 1) -> None:
        sums = self._kept[step][domain]
        sums[0] += documents
        sums[1] += num_bytes

    def cut(self, step: str, domain: str, num_bytes: int) -> None:
        """Bytes that a step took out of documents that it kept."""
        self._cut[step][domain] += num_bytes

    def drop(self, reason: str, num_bytes: int, sample: Sample, bound: float | None = None) -> None:
        key = (reason, bound)
        sums = self._drops[key][sample.domain]
        sums[0] += 1
        sums[1] += num_bytes
        self._samples[key].append((rank(sample), sample))
        if len(self._samples[key]) > 4 * NUM_SAMPLES:
            self._samples[key] = lowest(self._samples[key])

    def reject(self, domain: str, score: float) -> None:
        """Log-odds for which a model dropped a document."""
        self.count(f"rejected {domain}", str(score_bins(np.array([score]))[0]), 1)

    def count(self, what: str, name: str, number: int) -> None:
        self._counts[what][name] += number

    def bad(self, record: Bad) -> None:
        self._num_bad[record.kind] += 1
        if len(self._bad[record.kind]) < NUM_SAMPLES:
            self._bad[record.kind].append(f"{record.place}: {record.reason}")

    def write(self, folder: Path) -> None:
        facts = Facts(
            kept={step: _counts(domains) for step, domains in sorted(self._kept.items())},
            cut={step: dict(sorted(domains.items())) for step, domains in sorted(self._cut.items())},
            drops=self._dropped(),
            counts={what: dict(sorted(numbers.items())) for what, numbers in sorted(self._counts.items())},
            lines=dict(sorted(self.lines.items())),
            quarantined={reason: (self._num_bad[reason], tuple(self._bad[reason])) for reason in sorted(self._bad)},
        )
        (folder / FACTS_FILE).write_text(facts.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def _dropped(self) -> dict[str, tuple[Drop, ...]]:
        drops: dict[str, list[Drop]] = defaultdict(list)
        for key in sorted(self._drops, key=str):
            reason, bound = key
            samples = tuple(lowest(self._samples[key]))
            dropped = _counts(self._drops[key])
            drops[step_of(reason)].append(Drop(name=reason, bound=bound, by_domain=dropped, samples=samples))
        return {step: tuple(found) for step, found in drops.items()}


def merge(parts: Iterable[Facts]) -> Facts:
    """The facts of several units, in their order."""
    kept: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    cut_out: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    drops: dict[str, dict[tuple[str, float | None], Drop]] = defaultdict(dict)
    lines: dict[int, str] = {}
    bad: dict[str, tuple[int, tuple[str, ...]]] = {}
    for part in parts:
        for step, domains in part.kept.items():
            _add(kept[step], domains)
        for sums, found in ((cut_out, part.cut), (counts, part.counts)):
            for what, numbers in found.items():
                for name, number in numbers.items():
                    sums[what][name] += number
        for step, rules in part.drops.items():
            for drop in rules:
                known = drops[step].get((drop.name, drop.bound))
                drops[step][drop.name, drop.bound] = _both(known, drop) if known else drop
        lines = part.lines | lines
        for reason, (records, places) in part.quarantined.items():
            before, some = bad.get(reason, (0, ()))
            bad[reason] = (before + records, (*some, *places)[:NUM_SAMPLES])
    return Facts(
        kept={step: _counts(domains) for step, domains in kept.items()},
        cut={step: dict(domains) for step, domains in cut_out.items()},
        drops={step: tuple(rules.values()) for step, rules in drops.items()},
        counts={what: dict(numbers) for what, numbers in counts.items()},
        lines=lines,
        quarantined=bad,
    )


def read_facts(folder: Path) -> Facts:
    return Facts.model_validate_json((folder / FACTS_FILE).read_bytes())


def score_bins(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Of each score the bin of `SCORES`; what is beyond counts in the first or the last."""
    return np.clip(np.searchsorted(np.array(SCORES), scores, side="right") - 1, 0, len(SCORES) - 2)


def step_of(reason: str) -> str:
    """gopher_quality.min_words is of gopher_quality."""
    return reason.partition(".")[0]


def rank(sample: Sample) -> int:
    """By which samples are chosen: a hash of the text."""
    return xxhash.xxh64_intdigest(f"{sample.document} {sample.text}".encode()) >> 11  # JSON's numbers have 53 bits


def lowest(samples: list[tuple[int, Sample]]) -> list[tuple[int, Sample]]:
    return sorted(samples, key=lambda pair: (pair[0], pair[1].document))[:NUM_SAMPLES]


def cut(text: str) -> str:
    """An excerpt."""
    return text[:EXCERPT].encode()[:EXCERPT].decode(errors="ignore")


def beginning(texts: Texts, at: int) -> str:
    """An excerpt of a document."""
    begin, end = int(texts.offsets[at]), int(texts.offsets[at + 1])
    return texts.data[begin : min(end, begin + EXCERPT)].tobytes().decode(errors="ignore")


def _both(one: Drop, other: Drop) -> Drop:
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    _add(sums, one.by_domain)
    _add(sums, other.by_domain)
    samples = tuple(lowest([*one.samples, *other.samples]))
    return Drop(name=one.name, bound=one.bound, by_domain=_counts(sums), samples=samples)


def _add(sums: dict[str, list[int]], domains: dict[str, Count]) -> None:
    for domain, count in domains.items():
        sums[domain][0] += count.documents
        sums[domain][1] += count.bytes


def _counts(domains: dict[str, list[int]]) -> dict[str, Count]:
    return {name: Count(documents=sums[0], bytes=sums[1]) for name, sums in sorted(domains.items())}
