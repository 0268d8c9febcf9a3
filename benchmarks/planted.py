"""A corpus of real passages in which the duplicates are known: every pair with its exact Jaccard similarity."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from xgen.data.sources import tiny_sources

NGRAM = 5
BINS = ((1.0, 1.01), (0.9, 1.0), (0.8, 0.9), (0.75, 0.8), (0.7, 0.75), (0.6, 0.7), (0.5, 0.6))
# Documents that begin with the same page, as licences and menus do: this much of a pair in common makes no duplicates.
_NUM_PAGES, _PER_PAGE, _PAGE_WORDS, _OWN_WORDS = 25, 40, 150, 190
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Pair:
    original: int
    copy: int
    similarity: float


@dataclass(frozen=True)
class Planted:
    """`texts`: originals, then what only shares a page, then copies. Each original has one copy."""

    texts: list[str]
    pairs: list[Pair]

    def recall(self, removed: set[int]) -> dict[str, float]:
        """By bin of similarity: the share of pairs of which one is removed."""
        found = dict[str, float]()
        for low, high in BINS:
            pairs = [pair for pair in self.pairs if low <= pair.similarity < high]
            hit = [pair for pair in pairs if pair.original in removed or pair.copy in removed]
            found["same" if low == 1 else f"{low:g}-{high:g}"] = len(hit) / len(pairs)
        return found

    def precision(self, removed: set[int]) -> float:
        """The share of removed documents whose pair stays with one of two; all else is lost."""
        right = sum((pair.original in removed) or (pair.copy in removed) for pair in self.pairs)
        return right / len(removed)


def grams(text: str) -> set[str]:
    """What similarity is measured in: 5-grams of lower-case words."""
    words = _WORD.findall(text.lower())
    return {" ".join(words[at : at + NGRAM]) for at in range(max(len(words) - NGRAM + 1, 1))}


def jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def make_planted(per_bin: int, seed: int = 1) -> Planted:
    rng = np.random.default_rng(seed)
    passages = _passages(rng)
    originals = [next(passages) for _ in range(per_bin * len(BINS))]
    vocabulary = sorted({word for text in originals for word in _WORD.findall(text)})
    texts = list(originals)
    for _ in range(_NUM_PAGES):
        page = _first_words(next(passages), _PAGE_WORDS)
        texts += [page + "\n" + _first_words(next(passages), _OWN_WORDS) for _ in range(_PER_PAGE)]
    pairs = []
    for number, text in enumerate(originals):
        low, high = BINS[number // per_bin]
        copy, similarity = text, 1.0
        if low < 1:
            copy, similarity = _edited(text, low, high, vocabulary, rng)
        pairs.append(Pair(number, len(texts), similarity))
        texts.append(copy)
    return Planted(texts, pairs)


def _passages(rng: np.random.Generator) -> Iterator[str]:
    """Of 100 to 600 words; none has a tenth in common with one before."""
    seen: dict[str, int] = {}
    number = 0
    for source in tiny_sources():
        for unit in source.units():
            try:
                texts = [text for _, text in unit.read()]
            except (OSError, ValueError, SyntaxError):
                continue
            for text in texts:
                places = [match.end() for match in _WORD.finditer(text)]
                at = 0
                while at + 100 < len(places):
                    size = int(rng.integers(100, 600))
                    passage = text[places[at - 1] if at else 0 : places[min(at + size, len(places)) - 1]]
                    at += size
                    parts = grams(passage)
                    shared = Counter(seen[part] for part in parts if part in seen)
                    if len(parts) < 90 or (shared and max(shared.values()) > 0.1 * len(parts)):
                        continue
                    seen |= dict.fromkeys(parts, number)
                    number += 1
                    yield passage


def _first_words(text: str, count: int) -> str:
    places = [match.end() for match in _WORD.finditer(text)]
    return text[: places[min(count, len(places)) - 1]]


def _edited(text: str, low: float, high: float, vocabulary: list[str], rng: np.random.Generator) -> tuple[str, float]:
    """The text with words replaced, left out and put in until its similarity is about in the bin, and what it is."""
    pieces, before = re.split(r"(\w+)", text), grams(text)
    target = rng.uniform(low, high)
    edited, similarity = text, 1.0
    while similarity > target + 0.02 or similarity >= high:
        # As many as would do if no two edits met in an n-gram.
        lost = len(before) * (similarity - target) / (1 + similarity) / NGRAM
        for _ in range(max(int(lost), 1)):
            at = 2 * int(rng.integers(len(pieces) // 2)) + 1
            word = vocabulary[rng.integers(len(vocabulary))]
            pieces[at] = ("", word, f"{word} {pieces[at]}")[rng.integers(3)]
        edited = "".join(pieces)
        similarity = jaccard(before, grams(edited))
    return edited, similarity
