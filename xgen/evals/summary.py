"""Records of a checkpoint as scores with intervals: by task and length, RULER's averages, needles by depth, loss by
position."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, FiniteFloat

from xgen.evals.measures import AVERAGE, FALLING, RISING, Measure, measures
from xgen.evals.protocol import Item, Record, SuiteName
from xgen.evals.ruler.score import Summary as Averages
from xgen.evals.stats import LEVEL, Interval, mean_interval

EFFECTIVE = "effective_length"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class _Mean(_Frozen):
    """`low` and `high`: of the 95% interval; None where one document tells nothing of others."""

    mean: FiniteFloat
    low: FiniteFloat | None
    high: FiniteFloat | None
    count: int


class Score(_Mean):
    """Mean of `count` samples: 0 to 1, of `perplexity` nats a token, of `effective_length` tokens (0: none)."""

    suite: SuiteName
    task: str
    length: int  # 0: the task has none, or it is of all lengths
    expected: int | None = None  # samples, where that is known: fewer are still to come

    @property
    def key(self) -> str:
        return f"{self.suite}/{self.task}/{self.length}"


class Cell(_Mean):
    """Of the needle map: score at a depth (0 begin, 1 end) of a length."""

    task: str
    length: int
    depth: float


class Position(_Mean):
    """Of a perplexity: nats a token of `tokens` in all from the `first` on, over `count` documents."""

    task: str
    length: int
    first: int
    tokens: int


class Summary(_Frozen):
    """What `RUN/evaluation/step-N/scores.json` holds."""

    scores: tuple[Score, ...] = ()
    needles: tuple[Cell, ...] = ()
    positions: tuple[Position, ...] = ()

    @property
    def missing(self) -> int:
        """Samples that are still to come, of scores that know how many they have in all."""
        return sum(
            max(0, score.expected - score.count)
            for score in self.scores
            if score.expected is not None and score.task not in (AVERAGE, RISING, FALLING, EFFECTIVE)
        )

    def find(self, key: str) -> Score | None:
        return next((score for score in self.scores if score.key == key), None)


_Key = tuple[SuiteName, str, int]


def summarize(records: Iterable[Record], items: Iterable[Item] = ()) -> Summary:
    """`items`: all that there are to score; without them nothing is known to be missing. See `measures`."""
    unique: dict[Item, Record] = {}
    for record in records:
        unique.setdefault(record.item, record)
    wanted = list(items)
    found = measures(unique.values(), wanted)
    expected = Counter[_Key]((item.suite, item.task, item.length) for item in wanted)
    of: dict[_Key, list[Record]] = defaultdict(list)
    for record in unique.values():
        of[record.suite, record.task, record.length].append(record)
    return Summary(
        scores=(
            *(_score(measure, measure.interval(), expected.get(_key(measure))) for measure in found.values()),
            *_effective(found.values(), expected),
        ),
        needles=tuple(_cells(of)),
        positions=tuple(_positions(of)),
    )


def _key(measure: Measure) -> _Key:
    return measure.suite, measure.task, measure.length


def _score(measure: Measure, interval: Interval, expected: int | None = None) -> Score:
    suite, task, length = _key(measure)
    return Score(suite=suite, task=task, length=length, count=measure.count, expected=expected, **_ends(interval))


def _ends(interval: Interval) -> dict[str, float | None]:
    known = math.isfinite(interval.low)
    return {
        "mean": interval.mean,
        "low": interval.low if known else None,
        "high": interval.high if known else None,
    }


def _effective(found: Collection[Measure], expected: Iterable[_Key]) -> Iterator[Score]:
    """Once every length has its average.

    Whether it is less is asked length by length up to the first that may be below, so that one level holds for all;
    that it is more than all of them, of each on its own.
    """
    keys = [*expected, *map(_key, found)]
    lengths = {length for suite, _, length in keys if suite == "ruler" and length}
    averages = {of.length: of for of in found if of.suite == "ruler" and of.task == AVERAGE and of.length}
    if not averages or averages.keys() != lengths:
        return
    strict = 1 - (1 - LEVEL) / len(lengths)
    intervals = {length: of.interval() for length, of in averages.items()}
    ends = (
        {length: 100 * interval.mean for length, interval in intervals.items()},
        {length: 100 * interval.low for length, interval in intervals.items()},
        {length: 100 * of.interval(strict).high for length, of in averages.items()},
    )
    mean, low, high = (float(Averages.of(percent).effective_length or 0) for percent in ends)
    count = sum(of.count for of in averages.values())
    yield Score(suite="ruler", task=EFFECTIVE, length=0, count=count, mean=mean, low=low, high=high)


def _cells(of: Mapping[_Key, Sequence[Record]]) -> Iterator[Cell]:
    for (suite, task, length), records in sorted(of.items(), key=lambda pair: pair[0]):
        by_depth: dict[float, list[float]] = defaultdict(list)
        for record in records:
            if suite == "needles" and record.depth is not None:
                by_depth[record.depth].append(record.score)
        for depth, scores in sorted(by_depth.items()):
            ends = _ends(mean_interval(scores))
            yield Cell(task=task, length=length, depth=depth, count=len(scores), **ends)


def _positions(of: Mapping[_Key, Sequence[Record]]) -> Iterator[Position]:
    for (_, task, length), records in sorted(of.items(), key=lambda pair: pair[0]):
        by_first: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for record in records:
            for first, tokens, nats in record.bins:
                by_first[first].append((tokens, nats))
        for first, sums in sorted(by_first.items()):
            ends = _ends(mean_interval([nats / tokens for tokens, nats in sums], bounded=False))
            number = sum(tokens for tokens, _ in sums)
            yield Position(task=task, length=length, first=first, tokens=number, count=len(sums), **ends)
