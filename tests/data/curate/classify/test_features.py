"""n-grams straight from bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgen.data.curate.classify.features import NGrams, ngrams


def buckets(text: str | bytes, grams: NGrams) -> list[int]:
    data = np.frombuffer(text.encode() if isinstance(text, str) else text, np.uint8)
    out = np.empty(len(data) * grams.high + 1, np.uint32)
    count = ngrams(data, 0, len(data), grams.kind == "chars", grams.low, grams.high, grams.bits, out)
    return out[:count].tolist()


WORDS, PAIRS = NGrams("words", 1, 1, 30), NGrams("words", 1, 2, 30)
CHARS = NGrams("chars", 2, 4, 30)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Hello World", "hello  world"), ("in 1984", "in 2024"), ("a -------- b", "a ---- b"), ("a\tb", "a b")],
)
def test_what_says_the_same_has_the_same_words(one: str, other: str) -> None:
    assert buckets(one, PAIRS) == buckets(other, PAIRS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ab c", "a bc"),
        ("a b", "b a"),
        ("a.b", "a,b"),
        ("if x:\n    y", "if x:\ny"),
        ("a\nb", "a\n\nb"),
        ("naïve", "naive"),
    ],
)
def test_what_says_something_else_has_other_words(one: str, other: str) -> None:
    assert buckets(one, PAIRS) != buckets(other, PAIRS)


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), (" \n ", 0), ("one", 1), ("it's two", 4), ("über naïve", 2), ("日本語", 3), ("a…b", 3), ("x=f(y)", 6)],
)
def test_words_are_counted_as_a_reader_counts_them(text: str, count: int) -> None:
    assert len(buckets(text, WORDS)) == count


def test_a_pair_is_two_words_in_their_order() -> None:
    a, b, c = (buckets(word, WORDS)[0] for word in "abc")
    found = buckets("a b c", PAIRS)
    assert len(found) == 5
    assert set(found) > {a, b, c}
    assert buckets("a b", NGrams("words", 2, 2, 30))[0] in found
    assert buckets("b c", NGrams("words", 2, 2, 30))[0] in found


def test_characters_of_every_order() -> None:
    found = buckets("abcde", CHARS)
    assert len(found) == 4 + 3 + 2
    assert set(buckets("cde", CHARS)) < set(found)
    assert buckets("a  \n b", CHARS) == buckets("A b", CHARS)


@given(st.binary(max_size=300), st.integers(8, 30))
def test_any_bytes_give_buckets_of_the_table(data: bytes, bits: int) -> None:
    for kind in ("words", "chars"):
        assert all(0 <= found < 1 << bits for found in buckets(data, NGrams(kind, 1, 3, bits)))  # type: ignore[arg-type]


@given(st.text(max_size=200), st.text(max_size=200))
def test_two_lines_have_the_words_of_both(one: str, other: str) -> None:
    both = buckets(f"{one} a\nb {other}", WORDS)
    assert set(buckets(f"{one} a", WORDS)) | set(buckets(f"b {other}", WORDS)) <= set(both)
