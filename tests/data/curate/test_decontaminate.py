"""Evaluation items in the training text are found, however they were cleaned and wherever they stand."""

from __future__ import annotations

import json
import pydoc
import re
from collections.abc import Callable
from pathlib import Path
from pydoc_data import topics

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from xgen.data import StoreError
from xgen.data.curate.decontaminate import (
    EvaluationSet,
    Finder,
    Index,
    SetLeaks,
    build_index,
    excerpt,
    leaking,
    leaks_by_set,
    read_set,
)
from xgen.data.curate.texts import Texts

_vocabulary = st.lists(st.sampled_from("abcd"), max_size=14).map(" ".join)

CLEANED: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "upper case": str.upper,
    "punctuation taken out": lambda text: re.sub(r"[^\w\s]|_", "", text),
    "punctuation as spaces": lambda text: re.sub(r"[^\w\s]|_", " ", text),
    "other quotes, dashes and spaces": lambda text: (
        text.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}").replace("-", " \N{EM DASH} ").replace(" ", "\u00a0\n")
    ),
    "markup between words": lambda text: "**" + text.replace(" ", "* _") + "?!",
    "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
}


@pytest.fixture(scope="module")
def items() -> list[str]:
    """Sentences and short paragraphs of the language reference, of 8 words and more."""
    paragraphs = [
        " ".join(paragraph.split()) for text in topics.topics.values() for paragraph in re.split(r"\n\s*\n", text)
    ]
    # "Words" here as the kernel counts them; each text once, and none inside another.
    found = {p.lower(): p for p in paragraphs if 10 <= len(re.findall(r"[^\W_]+", p)) <= 120 and "\\" not in p}
    return sorted(found.values())[:: max(1, len(found) // 400)][:400]


@pytest.fixture(scope="module")
def documents() -> list[str]:
    """Source text that has nothing to do with them."""
    folder = Path(pydoc.__file__).parent
    names = ["ast", "calendar", "ftplib", "heapq", "mailbox", "optparse", "tarfile", "turtle", "uuid", "zipimport"]
    text = "\n".join((folder / f"{name}.py").read_text() for name in names)
    return [text[at : at + 3000] for at in range(0, len(text), 3000)]


@pytest.mark.parametrize("cleaned", CLEANED)
def test_every_planted_item_is_found_inside_longer_documents_and_nothing_else_is(
    items: list[str], documents: list[str], cleaned: str
) -> None:
    index = build_index([EvaluationSet("reference", [[item] for item in items])])
    assert index.sets[0].num_short == 0
    clean = Finder(index).find(Texts.of(documents))
    assert len(clean.documents) == 0
    planted = [
        f"{documents[i % len(documents)][:1500]}\n\n{CLEANED[cleaned](item)} {documents[i % 7][:900]}"
        for i, item in enumerate(items)
    ]
    texts = Texts.of([*documents, *planted])
    found = Finder(index).find(texts)
    pairs = set(zip(found.documents.tolist(), found.items.tolist(), strict=True))
    assert {(len(documents) + i, i) for i in range(len(items))} <= pairs
    assert found.documents.min() >= len(documents)
    mask = leaking(found, index, len(texts))
    assert mask.tolist() == [False] * len(documents) + [True] * len(planted)
    # Where punctuation was taken out there are fewer words, so fewer n-grams.
    whole = found.documents - len(documents) == found.items
    assert (found.matches[whole] >= 0.6 * index.item_ngrams[found.items[whole]]).mean() > 0.9


def test_a_part_of_an_item_is_found(items: list[str], documents: list[str]) -> None:
    long = [item for item in items if len(item.split()) > 50]
    index = build_index([EvaluationSet("reference", [[item] for item in long])])
    planted = [f"{documents[0]} {' '.join(item.split()[12:36])} {documents[1]}" for item in long]
    found = Finder(index).find(Texts.of(planted))
    assert {(i, i) for i in range(len(long))} <= set(zip(found.documents.tolist(), found.items.tolist(), strict=True))
    assert not leaking(found, index, len(planted), min_share=0.9).any()


@given(
    items=st.lists(_vocabulary, max_size=6),
    documents=st.lists(_vocabulary, max_size=5),
    ngram=st.integers(1, 5),
    min_words=st.integers(1, 5),
)
def test_rows_are_those_that_a_comparison_of_all_ngrams_gives(
    items: list[str], documents: list[str], ngram: int, min_words: int
) -> None:
    index = build_index([EvaluationSet("s", [[item] for item in items])], ngram, min_words)
    found = Finder(index).find(Texts.of(documents))
    expected = []
    for number, document in enumerate(documents):
        for owner, item in enumerate(items):
            words = item.split()
            length = min(ngram, len(words))
            if not words or length < min(ngram, min_words):
                continue
            wanted = {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}
            there = [tuple(document.split()[i : i + length]) for i in range(len(document.split()) - length + 1)]
            if common := wanted & set(there):
                expected.append((number, owner, len(common), min(there.index(one) for one in common)))
    columns = (found.documents, found.items, found.matches, found.words)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected


def test_short_items_are_whole_ngrams_and_very_short_ones_are_counted_as_skipped() -> None:
    eight = "one two three four five six seven eight"
    index = build_index([EvaluationSet("s", [[eight], ["Paris", "What is the capital?"], ["Paris", eight + " nine"]])])
    assert index.sets[0].num_short == 1
    assert index.item_ngrams.tolist() == [1, 0, 1]
    texts = Texts.of([f"zero {eight} nine", "What is the capital? Paris", eight[4:], ""])
    found = Finder(index).find(texts)
    assert list(zip(found.documents.tolist(), found.items.tolist(), strict=True)) == [(0, 0), (0, 2)]


def test_what_all_items_of_a_set_begin_with_is_no_leak() -> None:
    form = "Choose the one correct answer to the following question and explain in detail why it is correct"
    own = [
        f"item {i} asks what the {i} th of all the things that are listed in table {i} may well be" for i in range(9)
    ]
    index = build_index([EvaluationSet("s", [[f"{form} {text}"] for text in own])], max_items=5)
    found = Finder(index).find(Texts.of([form, own[3], f"{form} {own[3]}"]))
    assert list(zip(found.documents.tolist(), found.items.tolist(), strict=True)) == [(1, 3), (2, 3)]
    # An item that is there more often than that is still looked for.
    copies = build_index([EvaluationSet("s", [[own[0]]] * 9)], max_items=5)
    assert len(Finder(copies).find(Texts.of([own[0]])).items) == 9


def test_leaks_are_reported_by_set_and_can_be_read() -> None:
    poem = "Shall I compare thee to a summer's day? Thou art more lovely and more temperate: rough winds do shake"
    prose = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of folly"
    index = build_index(
        [EvaluationSet("poems", [[poem], ["too short"]]), EvaluationSet("prose", [[prose]]), EvaluationSet("none", [])]
    )
    texts = Texts.of(["nothing", f"He wrote:\n“{poem.upper()}”", f"{prose} — {poem}", prose])
    found = Finder(index).find(texts)
    assert leaks_by_set(index, found.documents, found.items) == (
        SetLeaks("poems", num_items=2, num_short=1, num_leaked=1, num_documents=2),
        SetLeaks("prose", num_items=1, num_short=0, num_leaked=1, num_documents=2),
        SetLeaks("none", num_items=0, num_short=0, num_leaked=0, num_documents=0),
    )
    assert excerpt(texts, 1, int(found.words[0]), 5) == "SHALL I COMPARE THEE TO"
    assert excerpt(texts, 0, 0, 13) == "nothing"


def test_a_document_full_of_matches_is_searched_to_its_end() -> None:
    item = "a b c d e f g h i j k l m"
    index = build_index([EvaluationSet("s", [[item]])])
    found = Finder(index).find(Texts.of(["x", f"{item} " * 20_000, "y", item]))
    assert found.documents.tolist() == [1, 3]
    assert found.matches.tolist() == [1, 1]


def test_an_index_comes_back_from_a_file_byte_for_byte(tmp_path: Path, items: list[str]) -> None:
    index = build_index([EvaluationSet("ä", [[item] for item in items[:50]]), EvaluationSet("empty", [])])
    index.save(tmp_path / "a")
    again = Index.load(tmp_path / "a")
    again.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (again.sets, again.ngram) == (index.sets, index.ngram)
    assert all(np.array_equal(getattr(again, name), value) for name, value in vars(index).items() if name != "sets")
    assert len(Finder(again).find(Texts.of(items[:50])).items) >= 50
    nothing = build_index([])
    assert len(Finder(nothing).find(Texts.of(["some text", ""])).items) == 0


def test_sets_are_read_with_the_keys_that_hold_text(tmp_path: Path) -> None:
    records = [{"q": "Who?", "choices": ["me", "you"], "n": 3}, {"q": "Why?", "choices": []}]
    path = tmp_path / "set.jsonl.zst"
    path.write_bytes(zstandard.compress("\n\n".join(map(json.dumps, records)).encode()))
    assert read_set("s", path, ["q", "choices"]).items == [["Who?", "me", "you"], ["Why?"]]
    with pytest.raises(StoreError, match=r"set.jsonl.zst: line 1: n: 3 is not text"):
        read_set("s", path, ["n"])
    with pytest.raises(StoreError, match=r"line 1: has no 'text'; name keys that hold text; there are q, choices, n"):
        read_set("s", path, ["text"])
    (tmp_path / "broken.jsonl").write_text('{"q": "x"}\n{"q": ')
    with pytest.raises(StoreError, match=r"broken.jsonl: line 2: is no JSON"):
        read_set("s", tmp_path / "broken.jsonl", ["q"])
