import gzip
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.curate.filters.oracle import FILE, digest
from xgen.data.curate.filters.take import take_texts, take_words
from xgen.data.curate.filters.words import HAS_LETTER, IS_WORD, Words, split
from xgen.data.curate.texts import Texts

# What spaCy cuts at, and what holds it together again.
_SIGNS = "aAbzZ019 .,:;!?'\"()-_/=<>+*^$%#@&~\n\t[]{}|\\"
_JOINED = (
    "'s", "...", "n't", "US$", "km", "://", "www.", ".com", "I'm", ":)", "e.g.", "don\u2019t", "\u2026", "\u2014",
    "\u65e5\u672c", "\u00e9", "\u00a0", "\u2028", "\U0001f642", "\u00b0", "id", "Mr.", "cannot",
)  # fmt: skip
PIECES = st.sampled_from([*_SIGNS, *_JOINED])
TEXT = st.lists(PIECES, max_size=60).map("".join) | st.text(max_size=60)


def words_of(text: str) -> list[str]:
    texts = Texts.of([text])
    return spelled(texts, split(texts), 0)


def spelled(texts: Texts, words: Words, number: int) -> list[str]:
    rows = slice(words.offsets[number], words.offsets[number + 1])
    spans = zip(words.start[rows].tolist(), words.num_bytes[rows].tolist(), strict=True)
    return [texts.data[at : at + size].tobytes().decode() for at, size in spans]


@pytest.fixture(scope="module")
def decisions() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(gzip.decompress(FILE.read_bytes()))
    return rows


def test_words_are_those_of_spacy(decisions: list[dict[str, Any]]) -> None:
    texts = Texts.of([row["text"] for row in decisions])
    words = split(texts)
    other = [n for n, row in enumerate(decisions) if digest("\n".join(spelled(texts, words, n))) != row["words"]]
    assert len(decisions) > 700
    assert other == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't (well-known), e.g. the U.S.'s:", "Do n't ( well - known ) , e.g. the U.S. 's :"),
        ("I'd pay $10.50 for 5km/h, 10% off!", "I 'd pay $ 10.50 for 5 km/h , 10 % off !"),
        ("see https://user@example.com:80/a-b?c=d, or a.b-c", "see https://user@example.com:80/a-b?c=d , or a.b - c"),
        ("f(x=y) it cannot... end. Mr. Smith", "f(x = y ) it can not ... end . Mr. Smith"),
        ("nice:) (id.)", "nice :) ( i d. )"),
        ("8.8.8.8/a-b 192.168.0.1/a-b", "8.8.8.8/a-b 192.168.0.1 / a - b"),
    ],
)
def test_each_way_of_cutting(text: str, words: str) -> None:
    assert words_of(text) == words.split()


@given(TEXT)
@settings(deadline=None, max_examples=300)
def test_words_are_the_text_without_its_white_space(text: str) -> None:
    found = words_of(text)
    assert "".join(found) == "".join(text.split())
    assert all(found)


@given(st.lists(TEXT, min_size=1, max_size=6))
@settings(deadline=None, max_examples=100)
def test_words_of_a_document_do_not_depend_on_its_batch(documents: list[str]) -> None:
    texts = Texts.of(documents)
    words = split(texts)
    assert [spelled(texts, words, number) for number in range(len(documents))] == [words_of(d) for d in documents]
    numbers = np.arange(0, len(documents), 2)
    taken = take_texts(texts, numbers)
    some = take_words(words, numbers, texts, taken)
    assert taken.to_strings() == documents[::2]
    for row, number in enumerate(numbers):
        assert spelled(taken, some, row) == words_of(documents[number])


def test_an_exception_that_starts_with_a_sign_is_a_word() -> None:
    words = split(Texts.of(["'s 'em 8) '"]))
    assert (words.flags & IS_WORD != 0).tolist() == [True, True, True, False]
    assert (words.flags & HAS_LETTER != 0).tolist() == [True, True, False, False]


def test_characters_hashes_and_flags() -> None:
    texts = Texts.of(["\u00e9t\u00e9 10 ??? \u65e5\u672c \u00e9t\u00e9"])
    words = split(texts)
    assert words.num_chars.tolist() == [3, 2, 1, 1, 1, 2, 3]
    assert words.num_bytes.tolist() == [5, 2, 1, 1, 1, 6, 5]
    assert (words.flags & HAS_LETTER != 0).tolist() == [True, False, False, False, False, True, True]
    assert (words.flags & IS_WORD != 0).tolist() == [True, True, False, False, False, True, True]
    assert words.code[0] == words.code[-1]
    assert len(set(words.code.tolist())) == 4


def test_a_word_of_a_megabyte_and_a_text_of_signs_alone() -> None:
    assert [len(word) for word in words_of("x" * 1_000_000 + " " + "\u00e9" * 300_000)] == [1_000_000, 300_000]
    assert len(words_of("?" * 50_000)) == 50_000
    assert len(words_of("a b c d e " * 40_000)) == 200_000
