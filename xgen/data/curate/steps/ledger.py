"""What a unit counted on its way through a step: sums that add up in any order, and samples chosen by a hash."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import xxhash
from pydantic import BaseModel, ConfigDict

from xgen.data.curate.report_model import Count, Sample
from xgen.data.readers import Bad

FACTS_FILE = "facts.json"
NUM_SAMPLES = 5  # of each reason
EXCERPT = 400  # bytes


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Drop(_Frozen):
    """What one rule of a step dropped; samples with the rank of their hash, lowest first."""

    bound: float | None
    by_domain: dict[str, Count]
    samples: tuple[tuple[int, Sample], ...]


class Facts(_Frozen):
    """facts.json. `kept` counts what passed a step, by step and domain; `drops` by step and reason."""

    kept: dict[str, dict[str, Count]]
    changed: dict[str, int]
    drops: dict[str, dict[str, Drop]]
    counts: dict[str, dict[str, int]]  # whatever else adds up: languages, what was masked
    quarantined: dict[str, tuple[int, tuple[str, ...]]]  # by reason: records, some places


class Ledger:
    """Sums while a unit is worked on."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
        self._changed: dict[str, int] = defaultdict(int)
        self._drops: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
        self._bounds: dict[tuple[str, str], float | None] = {}
        self._samples: dict[tuple[str, str], list[tuple[int, Sample]]] = defaultdict(list)
        self._counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._bad: dict[str, list[str]] = defaultdict(list)
        self._num_bad: dict[str, int] = defaultdict(int)

    def keep(self, step: str, domain: str, num_bytes: int, documents: int = 1) -> None:
        sums = self._kept[step][domain]
        sums[0] += documents
        sums[1] += num_bytes

    def change(self, step: str, num_bytes: int) -> None:
        """Bytes that a step took out of documents that it kept."""
        self._changed[step] += num_bytes

    def drop(self, step: str, reason: str, num_bytes: int, sample: Sample, bound: float | None = None) -> None:
        key = (step, reason)
        sums = self._drops[key][sample.domain]
        sums[0] += 1
        sums[1] += num_bytes
        self._bounds[key] = bound
        self._samples[key].append((rank(sample), sample))
        if len(self._samples[key]) > 4 * NUM_SAMPLES:
            self._samples[key] = lowest(self._samples[key])

    def count(self, what: str, name: str, number: int) -> None:
        self._counts[what][name] += number

    def bad(self, record: Bad) -> None:
        self._num_bad[record.kind] += 1
        if len(self._bad[record.kind]) < NUM_SAMPLES:
            self._bad[record.kind].append(f"{record.place}: {record.reason}")

    def write(self, folder: Path) -> None:
        facts = Facts(
            kept={step: _counts(domains) for step, domains in sorted(self._kept.items())},
            changed=dict(sorted(self._changed.items())),
            drops=self._dropped(),
            counts={what: dict(sorted(numbers.items())) for what, numbers in sorted(self._counts.items())},
            quarantined={reason: (self._num_bad[reason], tuple(self._bad[reason])) for reason in sorted(self._bad)},
        )
        (folder / FACTS_FILE).write_text(facts.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def _dropped(self) -> dict[str, dict[str, Drop]]:
        drops: dict[str, dict[str, Drop]] = defaultdict(dict)
        for (step, reason), domains in sorted(self._drops.items()):
            key = (step, reason)
            samples = tuple(lowest(self._samples[key]))
            drops[step][reason] = Drop(bound=self._bounds[key], by_domain=_counts(domains), samples=samples)
        return dict(drops)


def merge(parts: Iterable[Facts]) -> Facts:
    """The facts of several units, in their order."""
    kept: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    changed: dict[str, int] = defaultdict(int)
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    drops: dict[str, dict[str, Drop]] = defaultdict(dict)
    bad: dict[str, tuple[int, tuple[str, ...]]] = {}
    for part in parts:
        for step, domains in part.kept.items():
            _add(kept[step], domains)
        for step, number in part.changed.items():
            changed[step] += number
        for what, numbers in part.counts.items():
            for name, number in numbers.items():
                counts[what][name] += number
        for step, reasons in part.drops.items():
            for reason, drop in reasons.items():
                known = drops[step].get(reason)
                drops[step][reason] = _both(known, drop) if known else drop
        for reason, (number, places) in part.quarantined.items():
            before, some = bad.get(reason, (0, ()))
            bad[reason] = (before + number, (*some, *places)[:NUM_SAMPLES])
    return Facts(
        kept={step: _counts(domains) for step, domains in kept.items()},
        changed=dict(changed),
        drops={step: dict(reasons) for step, reasons in drops.items()},
        counts={what: dict(numbers) for what, numbers in counts.items()},
        quarantined=bad,
    )


def rank(sample: Sample) -> int:
    """By which samples are chosen: a hash of the text."""
    return xxhash.xxh64_intdigest(f"{sample.document} {sample.text}".encode()) >> 11  # JSON's numbers have 53 bits


def lowest(samples: list[tuple[int, Sample]]) -> list[tuple[int, Sample]]:
    return sorted(samples, key=lambda pair: (pair[0], pair[1].document))[:NUM_SAMPLES]


def cut(text: str) -> str:
    """An excerpt."""
    return text.encode()[:EXCERPT].decode(errors="ignore")


def _both(one: Drop, other: Drop) -> Drop:
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    _add(sums, one.by_domain)
    _add(sums, other.by_domain)
    samples = tuple(lowest([*one.samples, *other.samples]))
    return Drop(bound=one.bound, by_domain=_counts(sums), samples=samples)


def _add(sums: dict[str, list[int]], domains: dict[str, Count]) -> None:
    for domain, count in domains.items():
        sums[domain][0] += count.documents
        sums[domain][1] += count.bytes


def _counts(domains: dict[str, list[int]]) -> dict[str, Count]:
    return {name: Count(documents=sums[0], bytes=sums[1]) for name, sums in sorted(domains.items())}
