"""What a filter says of each document: what it measured, and the first rule that drops it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.filters.take import take_texts, take_words
from xgen.data.curate.filters.words import Words, split
from xgen.data.curate.texts import Texts

KEPT = -1


@dataclass(frozen=True)
class Rule:
    """A document is dropped where `measure` is under `least` or over `most`; on the bound it stays."""

    name: str  # the threshold's
    measure: str
    least: float = -np.inf
    most: float = np.inf


def at_least(name: str, measure: str, bound: float | None) -> tuple[Rule, ...]:
    """A rule, or none where the threshold is switched off."""
    return () if bound is None else (Rule(name, measure, least=bound),)


def at_most(name: str, measure: str, bound: float | None) -> tuple[Rule, ...]:
    return () if bound is None else (Rule(name, measure, most=bound),)


@dataclass(frozen=True)
class Trace:
    """`measures` has what was measured, in the unit that its name says; `dropped_by` numbers `rules`, or is KEPT."""

    filter: str
    measures: Mapping[str, NDArray[np.float64]]
    rules: tuple[Rule, ...]
    dropped_by: NDArray[np.int16]
    changed: Batch | None = None  # the documents after this filter, where it changes them
    labels: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)  # what is no number: the language

    @classmethod
    def of(
        cls,
        name: str,
        measures: Mapping[str, NDArray[np.float64]],
        rules: Sequence[Rule],
        changed: Batch | None = None,
        labels: Mapping[str, NDArray[np.str_]] | None = None,
    ) -> Trace:
        """Applies the rules in their order. A value that is not a number breaks none."""
        dropped_by = np.full(len(next(iter(measures.values()))), KEPT, dtype=np.int16)
        for number, rule in enumerate(rules):
            value = measures[rule.measure]
            dropped_by[((value < rule.least) | (value > rule.most)) & (dropped_by == KEPT)] = number
        return cls(name, measures, tuple(rules), dropped_by, changed, labels or {})

    @property
    def kept(self) -> NDArray[np.bool_]:
        kept: NDArray[np.bool_] = self.dropped_by == KEPT
        return kept

    def reason(self, number: int) -> str:
        """Of one document: `gopher_quality.min_words: words = 12 < 50`, or empty where it was kept."""
        if self.dropped_by[number] == KEPT:
            return ""
        rule = self.rules[self.dropped_by[number]]
        value = self.measures[rule.measure][number]
        sign, bound = ("<", rule.least) if value < rule.least else (">", rule.most)
        return f"{self.filter}.{rule.name}: {rule.measure} = {value:.6g} {sign} {bound:g}"


class Batch:
    """Documents under way through the filters. Words are split when they are first asked for, once for all filters."""

    def __init__(self, texts: Texts, urls: Sequence[str] | None = None, words: Words | None = None) -> None:
        """`urls`: of each document, "" where it has none; None where no document has one."""
        assert urls is None or len(urls) == len(texts)
        self.texts, self.urls, self._words = texts, urls, words

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def words(self) -> Words:
        if self._words is None:
            self._words = split(self.texts)
        return self._words

    def take(self, kept: NDArray[np.bool_]) -> Batch:
        """The documents of the mask, and their words where they are known."""
        if kept.all():
            return self
        numbers = np.flatnonzero(kept)
        texts = take_texts(self.texts, numbers)
        words = None if self._words is None else take_words(self._words, numbers, self.texts, texts)
        return Batch(texts, None if self.urls is None else [self.urls[number] for number in numbers.tolist()], words)


class Filter(Protocol):
    """Pure: the same documents give the same trace, whatever the batch that they came in."""

    @property
    def name(self) -> str: ...

    @property
    def thresholds(self) -> object: ...

    def check(self, batch: Batch) -> Trace: ...
