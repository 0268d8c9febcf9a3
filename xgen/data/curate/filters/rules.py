"""Rules of one's own: blocked sites and addresses, and regular expressions over lines."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from xgen.data.curate.filters.take import replace_texts
from xgen.data.curate.filters.thresholds import Lines, Urls
from xgen.data.curate.filters.trace import Batch, Rule, Trace, at_most
from xgen.data.errors import StoreError

_SIGNS = re.compile(r"[^a-zA-Z0-9]+")


@dataclass(frozen=True)
class UrlFilter:
    """As datatrove's URLFilter with lists of one's own, but without a list of public suffixes: a site is blocked with
    all below it ("example.com" blocks "a.example.com"). A document without an address passes.
    """

    thresholds: Urls
    domains: frozenset[str]
    urls: frozenset[str]
    words: frozenset[str]
    soft_words: frozenset[str]
    parts: re.Pattern[str] | None
    name: str = "url"

    @classmethod
    def open(cls, thresholds: Urls) -> UrlFilter:
        """Reads the lists. Raises StoreError for a file that is not there, or is no text."""
        parts = sorted(_SIGNS.sub("", entry).lower() for entry in _entries(thresholds.parts))
        return cls(
            thresholds,
            frozenset(entry.lower().strip(".") for entry in _entries(thresholds.domains)),
            frozenset(_entries(thresholds.urls)),
            frozenset(entry.lower() for entry in _entries(thresholds.words)),
            frozenset(entry.lower() for entry in _entries(thresholds.soft_words)),
            re.compile("|".join(map(re.escape, filter(None, parts)))) if any(parts) else None,
        )

    def check(self, batch: Batch) -> Trace:
        values = np.zeros((len(batch), 5))
        for number, url in enumerate(batch.urls or ()):
            if url:
                values[number] = self._measure(url)
        names = ("domain", "url", "words", "soft_words", "parts")
        rules = [Rule("domains", "domain", most=0), Rule("urls", "url", most=0), Rule("words", "words", most=0)]
        rules += [
            Rule("max_soft_words", "soft_words", most=self.thresholds.max_soft_words),
            Rule("parts", "parts", most=0),
        ]
        return Trace.of(self.name, {name: values[:, column] for column, name in enumerate(names)}, rules)

    def _measure(self, url: str) -> tuple[bool, bool, int, int, bool]:
        words = {word.lower() for word in _SIGNS.split(url)}
        part = self.parts is not None and self.parts.search(_SIGNS.sub("", url).lower()) is not None
        return (
            any(domain in self.domains for domain in _above(_host(url))),
            url in self.urls,
            len(words & self.words),
            len(words & self.soft_words),
            part,
        )


def _host(url: str) -> str:
    try:
        return (urlsplit(url if "://" in url else f"//{url}").hostname or "").strip(".")
    except ValueError:  # a bracket that is no IPv6
        return ""


def _above(host: str) -> Iterable[str]:
    """a.b.c, b.c, c"""
    labels = host.split(".")
    return (".".join(labels[first:]) for first in range(len(labels)))


def _entries(files: Iterable[str]) -> list[str]:
    found = []
    for file in files:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(file, f"cannot be read as a list: {error}", "name a text file, an entry a line") from None
        found += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return found


@dataclass(frozen=True)
class LineFilter:
    """Changes the text where a pattern cuts: `Trace.changed`. Measures: of each pattern its share of the lines."""

    thresholds: Lines
    expressions: tuple[re.Pattern[str], ...]
    name: str = "lines"

    @classmethod
    def open(cls, thresholds: Lines) -> LineFilter:
        """Raises StoreError for an expression that Python does not read, and for two patterns of one name."""
        names = [pattern.name for pattern in thresholds.patterns]
        expressions = []
        for pattern in thresholds.patterns:
            place = f"pattern {pattern.name}"
            if names.count(pattern.name) > 1:
                raise StoreError(place, "is there twice", "give each a name of its own")
            if not pattern.cut and pattern.max_share is None:
                raise StoreError(place, "does nothing", "set cut: true, or max_share")
            try:
                expressions.append(re.compile(pattern.expression))
            except re.error as error:
                raise StoreError(place, f"{pattern.expression!r} is no regular expression: {error}", "see re") from None
        return cls(thresholds, tuple(expressions))

    def check(self, batch: Batch) -> Trace:
        patterns = self.thresholds.patterns
        shares = np.zeros((len(batch), len(patterns)))
        changed: dict[int, bytes] = {}
        for number in range(len(batch)):
            text = batch.texts[number]
            lines = text.split("\n")
            for column, (pattern, expression) in enumerate(zip(patterns, self.expressions, strict=True)):
                left = [line for line in lines if expression.search(line) is None]
                shares[number, column] = 1 - len(left) / len(lines) if lines else 0
                if pattern.cut:
                    lines = left
            after = "\n".join(lines)
            if after != text:
                changed[number] = after.encode()
        measures = {pattern.name: shares[:, column] for column, pattern in enumerate(patterns)}
        rules: list[Rule] = []
        for pattern in patterns:
            rules += at_most(pattern.name, pattern.name, pattern.max_share)
        result = Batch(replace_texts(batch.texts, changed), batch.urls) if changed else batch
        return Trace.of(self.name, measures or {"patterns": np.zeros(len(batch))}, rules, result)
