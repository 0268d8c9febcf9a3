"""Evaluation items that stand in the training text: found by the word n-grams that both have.

13 words in a row, as GPT-3 took them (arXiv 2005.14165, appendix C), without case, accents and punctuation (words.py).
Each item is looked for twice: with punctuation as a gap between words, and with punctuation taken out ("wellknown"),
so a copy is found whichever way somebody cleaned it. An item of fewer words is one n-gram as a whole; below `min_words`
it would be found everywhere, so it is skipped and counted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.ngrams import NgramTable, ngrams_of
from xgen.data.curate.texts import Texts
from xgen.data.curate.words import fold_table, hash_words, next_words
from xgen.data.documents import lines_of
from xgen.data.errors import StoreError


@dataclass(frozen=True)
class EvaluationSet:
    """Items of a set, each with the texts that must not leak (question, choices, answer), in order."""

    name: str
    items: Sequence[Sequence[str]]


@dataclass(frozen=True)
class SetMeta:
    """What is looked for of a set."""

    name: str
    num_items: int
    num_short: int  # items of which every text is too short to be looked for


@dataclass(frozen=True)
class Index:
    """n-grams of evaluation items, by hash. Items are numbered across the sets."""

    sets: tuple[SetMeta, ...]
    ngram: int
    item_sets: NDArray[np.int64]  # [items]: the set
    item_numbers: NDArray[np.int64]  # [items]: the item's number in its set
    item_ngrams: NDArray[np.int64]  # [items]: distinct n-grams that are looked for, with gaps for punctuation
    lengths: NDArray[np.int64]  # in words, of the n-grams there are
    hashes: NDArray[np.uint64]  # [n-grams], ascending
    offsets: NDArray[np.int64]  # [n-grams + 1]: items of n-gram i are members[offsets[i] : offsets[i + 1]]
    members: NDArray[np.int64]

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(
                file,
                set_names=np.array([meta.name for meta in self.sets], dtype=np.str_),
                set_counts=np.array([(meta.num_items, meta.num_short) for meta in self.sets], np.int64).reshape(-1, 2),
                ngram=np.int64(self.ngram),
                item_sets=self.item_sets,
                item_numbers=self.item_numbers,
                item_ngrams=self.item_ngrams,
                lengths=self.lengths,
                hashes=self.hashes,
                offsets=self.offsets,
                members=self.members,
            )

    @classmethod
    def load(cls, path: Path) -> Index:
        with np.load(path, allow_pickle=False) as file:
            stored = dict(file)
        names, counts = stored.pop("set_names").tolist(), stored.pop("set_counts").tolist()
        sets = tuple(SetMeta(name, *numbers) for name, numbers in zip(names, counts, strict=True))
        return cls(sets=sets, ngram=int(stored.pop("ngram")), **stored)


@dataclass(frozen=True)
class Found:
    """One row for a document and an item that share n-grams, by document and item."""

    documents: NDArray[np.int64]  # numbers in the batch
    items: NDArray[np.int64]
    matches: NDArray[np.int64]  # distinct n-grams of the item that are in the document
    words: NDArray[np.int64]  # of the document: where the first of them begins


@dataclass(frozen=True)
class SetLeaks:
    """How a set fared."""

    name: str
    num_items: int
    num_short: int
    num_leaked: int  # items that are in some document
    num_documents: int  # that hold some item


def read_set(name: str, path: Path, keys: Sequence[str]) -> EvaluationSet:
    """The items of a jsonl file (.zst, .gz): each key holds text or a list of texts.

    Raises StoreError that names the file and line for what is no JSON object, and for a key that is missing.
    """
    return EvaluationSet(name, [_texts_of(path, number, line, keys) for number, line in lines_of(path) if line.strip()])


def build_index(sets: Iterable[EvaluationSet], ngram: int = 13, min_words: int = 8, max_items: int = 100) -> Index:
    """An n-gram that more than `max_items` items share belongs to the form of a set and not to an item ("choose the
    correct answer from the following"); it is left out, unless the item has no other."""
    every = list(sets)
    metas = [(number, item) for number, one in enumerate(every) for item in range(len(one.items))]
    texts: list[str] = []
    owners: list[int] = []
    for owner, (number, item) in enumerate(metas):
        for text in every[number].items[item]:
            texts += (text, _joined(text))
            owners += (owner, owner)
    words = hash_words(Texts.of(texts))
    # Counted with gaps; joined, a text of code has few words, but such as no other text has.
    long_enough = np.diff(words.offsets)[::2] >= max(1, min(min_words, ngram))
    hashes, lengths, text_of = ngrams_of(words, ngram, np.repeat(long_enough, 2))
    owner_of, joined = np.array(owners, dtype=np.int64)[text_of], text_of % 2 == 1
    order = np.lexsort((joined, owner_of, hashes))
    # Each once for an item; of an n-gram that both ways of reading give, the first.
    again = (np.diff(hashes[order]) == 0) & (np.diff(owner_of[order]) == 0)
    order = order[np.append(True, ~again)[: len(order)]]
    _, group, shared_by = np.unique(hashes[order], return_inverse=True, return_counts=True)
    own = shared_by[group] <= max_items
    has_own = np.zeros(len(metas), dtype=np.bool_)
    has_own[owner_of[order][own & ~joined[order]]] = True
    order = order[own | ~has_own[owner_of[order]]]
    hashes, lengths, owner_of, joined = (column[order] for column in (hashes, lengths, owner_of, joined))
    distinct, first = np.unique(hashes, return_index=True)
    num_ngrams = np.bincount(owner_of[~joined], minlength=len(metas)).astype(np.int64)
    item_sets = np.array([number for number, _ in metas], dtype=np.int64)
    short = np.bincount(item_sets[num_ngrams == 0], minlength=len(every)).tolist()
    return Index(
        sets=tuple(SetMeta(one.name, len(one.items), missed) for one, missed in zip(every, short, strict=True)),
        ngram=ngram,
        item_sets=item_sets,
        item_numbers=np.array([item for _, item in metas], dtype=np.int64),
        item_ngrams=num_ngrams,
        lengths=np.unique(lengths),
        hashes=distinct,
        offsets=np.append(first, len(hashes)).astype(np.int64),
        members=owner_of.astype(np.int64),
    )


class Finder:
    """Looks for an index in batches of documents."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._table = NgramTable(index.hashes, index.lengths)

    def find(self, texts: Texts) -> Found:
        """Every document and item of the index that share an n-gram."""
        return self._by_item(self._table.find(hash_words(texts)))

    def _by_item(self, hits: NDArray[np.int64]) -> Found:
        """Rows (document, n-gram, word) become (document, item) with their distinct n-grams."""
        index = self.index
        _, first = np.unique(hits[:, 0] * max(1, len(index.hashes)) + hits[:, 1], return_index=True)
        documents, ngrams, words = hits[first].T
        begins, ends = index.offsets[ngrams], index.offsets[ngrams + 1]
        counts = ends - begins
        row = np.repeat(np.arange(len(ngrams)), counts)
        items = index.members[begins[row] + np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)]
        keys = documents[row] * max(1, len(index.item_sets)) + items
        _, first, group, matches = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        earliest = np.full(len(first), np.iinfo(np.int64).max)
        np.minimum.at(earliest, group, words[row])
        return Found(documents[row][first], items[first], matches, earliest)


def leaking(found: Found, index: Index, num_documents: int, min_share: float = 0.0) -> NDArray[np.bool_]:
    """The documents of a batch that hold an item: one of its n-grams, and at least `min_share` of all it has."""
    mask = np.zeros(num_documents, dtype=np.bool_)
    mask[found.documents[found.matches >= min_share * index.item_ngrams[found.items]]] = True
    return mask


def leaks_by_set(index: Index, documents: NDArray[np.integer], items: NDArray[np.integer]) -> tuple[SetLeaks, ...]:
    """The report, from the rows of all batches (with documents numbered across them)."""
    sets = index.item_sets[items]
    return tuple(
        SetLeaks(
            meta.name,
            meta.num_items,
            meta.num_short,
            len(np.unique(items[sets == number])),
            len(np.unique(documents[sets == number])),
        )
        for number, meta in enumerate(index.sets)
    )


def excerpt(texts: Texts, document: int, word: int, num_words: int) -> str:
    """The text of `num_words` words from `word` on: what matched, for a person to read."""
    at, last = int(texts.offsets[document]), int(texts.offsets[document + 1])
    edges = [at]
    for count in (word, num_words):
        if count:
            at, _ = next_words(texts.data, at, last, fold_table(), np.uint64(0), np.empty(count, dtype=np.uint64), 0)
        edges.append(at)
    # What separates words comes before them.
    return re.sub(r"^\W+", "", texts.data[edges[1] : edges[2]].tobytes().decode(errors="replace"))


def _texts_of(path: Path, number: int, line: bytes, keys: Sequence[str]) -> list[str]:
    from pydantic_core import from_json

    place = f"{path}: line {number}"
    try:
        record = from_json(line)
    except ValueError as error:
        raise StoreError(place, f"is no JSON: {error}", "mend or remove this line") from None
    texts: list[str] = []
    for key in keys:
        if not isinstance(record, dict) or key not in record:
            known = ", ".join(map(str, record)) if isinstance(record, dict) else "no object"
            raise StoreError(place, f"has no {key!r}", f"name keys that hold text; there are {known}")
        value = record[key]
        some = value if isinstance(value, list) else [value]
        if bad := next((one for one in some if not isinstance(one, str)), None):
            raise StoreError(place, f"{key}: {bad!r:.60} is not text", "name keys that hold text, or lists of texts")
        texts += some
    return texts


def _joined(text: str) -> str:
    """Without punctuation, whose neighbours become one word."""
    return "".join(char for char in text if char.isspace() or unicodedata.category(char)[0] in "LNM")
