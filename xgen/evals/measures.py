"""What is meant over records: each task at each length, and RULER's averages, as strata of samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from xgen.evals.protocol import Item, Record, SuiteName
from xgen.evals.stats import LEVEL, Interval, average_interval, mean_interval

AVERAGE, RISING, FALLING = "average", "wavg_inc", "wavg_dec"


class Sample(NamedTuple):
    """Only samples of equal digests are the same. `source`: of the text around what is asked for."""

    score: float
    digest: str
    source: str


Samples = Mapping[tuple[int, float | None], Sample]  # by index and depth


@dataclass(frozen=True)
class Stratum:
    name: str
    weight: float
    samples: Samples


@dataclass(frozen=True)
class Measure:
    """A weighted mean over strata; most have one. `over`: the lengths that it is over, where it is of more than one."""

    suite: SuiteName
    task: str
    length: int
    strata: tuple[Stratum, ...]
    over: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.suite}/{self.task}/{self.length}"

    @property
    def bounded(self) -> bool:
        return self.suite != "perplexity"

    @property
    def count(self) -> int:
        return sum(len(stratum.samples) for stratum in self.strata)

    def interval(self, level: float = LEVEL) -> Interval:
        scores = [[sample.score for sample in stratum.samples.values()] for stratum in self.strata]
        if not self.bounded:
            return mean_interval(scores[0], level, bounded=False)
        return average_interval(scores, [stratum.weight for stratum in self.strata], level)


def measures(records: Iterable[Record], items: Iterable[Item] = ()) -> dict[str, Measure]:
    """By key. An item that is recorded twice counts once, as it was first.

    RULER's averages are of the tasks that are scored at any length, or are among `items`: a length has one once each of
    them has a sample there, all lengths together (0) once each length has.
    """
    of: dict[tuple[SuiteName, str, int], dict[tuple[int, float | None], Sample]] = defaultdict(dict)
    for record in records:
        sample = Sample(record.score, record.digest, record.source)
        of[record.suite, record.task, record.length].setdefault((record.index, record.depth), sample)
    found = [Measure(*key, (Stratum(key[1], 1.0, of[key]),)) for key in sorted(of)]
    by_task: dict[str, dict[int, Samples]] = defaultdict(dict)
    for suite, task, length in sorted({*of, *((item.suite, item.task, item.length) for item in items)}):
        if suite == "ruler":
            by_task[task][length] = of.get((suite, task, length), {})
    return {measure.key: measure for measure in (*found, *_averages(by_task))}


def _averages(by_task: Mapping[str, Mapping[int, Samples]]) -> Iterator[Measure]:
    lengths = sorted({length for by_length in by_task.values() for length in by_length})
    whole = [length for length in lengths if all(by_length.get(length) for by_length in by_task.values())]
    for length in whole:
        strata = [Stratum(task, 1.0, by_length[length]) for task, by_length in by_task.items()]
        yield Measure("ruler", AVERAGE, length, tuple(strata))
    if len(lengths) > 1 and whole == lengths:
        rising = range(1, len(lengths) + 1)
        for name, weights in ((AVERAGE, [1] * len(lengths)), (RISING, rising), (FALLING, rising[::-1])):
            of = dict(zip(lengths, weights, strict=True))
            strata = [stratum for task, by_length in by_task.items() for stratum in _over_lengths(task, by_length, of)]
            yield Measure("ruler", name, 0, tuple(strata), tuple(lengths))


def _over_lengths(task: str, by_length: Mapping[int, Samples], weights: Mapping[int, int]) -> Iterator[Stratum]:
    """Samples of one number may be of one question at every length: where all lengths have the same, they are one."""
    total = sum(weights.values())
    first = by_length[next(iter(weights))]
    if any({index for index, _ in samples} != {index for index, _ in first} for samples in by_length.values()):
        yield from (Stratum(f"{task}/{at}", weights[at] / total, by_length[at]) for at in weights)
        return
    scored = {at: {index: sample for (index, _), sample in by_length[at].items()} for at in weights}
    joined: dict[tuple[int, float | None], Sample] = {}
    for index, _ in first:
        parts = [scored[at][index] for at in weights]
        score = sum(weights[at] * scored[at][index].score for at in weights) / total
        joined[index, None] = Sample(score, " ".join(part.digest for part in parts), parts[0].source)
    yield Stratum(task, 1.0, joined)


def items_of(measure: Measure) -> set[Item]:
    """Of a measure of one task and length."""
    (stratum,) = measure.strata
    return {Item(measure.suite, measure.task, measure.length, index, depth) for index, depth in stratum.samples}
