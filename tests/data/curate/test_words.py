"""What counts as the same word, against the same rules in plain Python."""

# ruff: noqa: RUF001 - letters that look alike are what this is about
from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgen.data.curate.exact import exact_hash, first_equal
from xgen.data.curate.texts import Texts
from xgen.data.curate.words import hash_words

# What is rare among all characters: accents, points, scripts without spaces, widths.
hard = st.text("aZé\u0301ñÑ 1٣²Ａ’'-_\n漢字かなไทยदीхХ\u064bب\u200d\U00020000😀ßıİÅ")


def words(string: str) -> list[str]:
    """The rules again, of the strings themselves."""
    found, begun = [], ""
    for char in string:
        code = ord(char)
        point = unicodedata.category(char) == "Mn" and unicodedata.name(char, "").startswith(
            ("COMBINING", "HEBREW", "ARABIC")
        )
        if (point and code < 0x700) or char in "\u200b\u200c\u200d":
            continue
        if code >= 0x40000 or (code < 0x20000 and unicodedata.category(char)[0] not in "LNM"):
            found, begun = [*found, begun], ""
        elif any(name in unicodedata.name(char, "CJK") for name in ("CJK", "HIRAGANA", "THAI")):
            found, begun = [*found, begun, char], ""
        else:
            base = "".join(c for c in unicodedata.normalize("NFKD", char.lower()) if not unicodedata.combining(c))
            begun += base.lower() if len(base) == 1 else char.lower()[0]
    return [word for word in [*found, begun] if word]


@given(hard, hard)
def test_texts_have_equal_hashes_where_their_words_are_equal(one: str, other: str) -> None:
    found = hash_words(Texts.of([one, other]))
    hashes = found.hashes.tolist()
    first, second = hashes[: found.offsets[1]], hashes[found.offsets[1] :]
    assert len(first) == len(words(one))
    assert len(second) == len(words(other))
    assert (first == second) == (words(one) == words(other))
    by_word = dict(zip(words(one) + words(other), first + second, strict=True))
    assert [by_word[word] for word in words(one)] == first
    assert len(set(by_word.values())) == len(by_word)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The Cat, sat.", "the   cat\tsat"),
        ("Café École", "cafe\u0301 ÉCOLE"),
        ("ＡＢＣ １２", "abc 12"),
        ("don't", "don\u2019t"),
        ("ПРИВЕТ мир", "привет — Мир!"),
        ("漢字かな", "漢 字 か な"),
        ("\u0645\u064f\u062d\u0645\u062f", "\u0645\u062d\u0645\u062f"),
    ],
)
def test_case_punctuation_space_accents_and_width_do_not_count(one: str, other: str) -> None:
    assert exact_hash(Texts.of([one]))[0].tolist() == exact_hash(Texts.of([other]))[0].tolist()


@pytest.mark.parametrize(
    ("one", "other"),
    [("version 1", "version 2"), ("a b", "ab"), ("a b", "b a"), ("한국", "한글"), ("दी", "दि"), ("漢字", "漢宇")],
)
def test_digits_order_and_other_letters_count(one: str, other: str) -> None:
    assert exact_hash(Texts.of([one]))[0].tolist() != exact_hash(Texts.of([other]))[0].tolist()


@given(st.lists(st.binary()))
def test_any_bytes_are_taken(documents: list[bytes]) -> None:
    found = hash_words(Texts.of(documents))
    assert found.offsets[-1] == len(found.hashes)
    valid = [document.decode("utf-8", "ignore") for document in documents if document.isascii()]
    assert [len(words(string)) for string in valid] == [
        int(count) for count, document in zip(np.diff(found.offsets), documents, strict=True) if document.isascii()
    ]


def test_a_seed_gives_other_hashes() -> None:
    texts = Texts.of(["one two three"])
    assert not set(hash_words(texts, 1).hashes.tolist()) & set(hash_words(texts, 2).hashes.tolist())


@given(st.lists(hard | st.sampled_from(["!", "?", "", "a b", "A, b"])))
def test_the_first_equal_document_is_that_of_the_same_words(strings: list[str]) -> None:
    """Without words, of the same bytes."""
    seen: dict[object, int] = {}
    keys = [tuple(words(string)) or string for string in strings]
    expected = [seen.setdefault(key, number) for number, key in enumerate(keys)]
    assert first_equal(exact_hash(Texts.of(strings))).tolist() == expected


def test_a_text_of_many_blocks_is_hashed_to_its_end() -> None:
    long = " ".join(map(str, range(5000)))
    hashes = exact_hash(Texts.of([long, long + ".", long + " x", "x " + long]))
    assert len({tuple(row) for row in hashes.tolist()}) == 3
