"""Statistics of structure, and trees over them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.curate.classify.spam import halves, real_texts, sections
from xgen.data.curate.classify.features import PIECE
from xgen.data.curate.classify.structure import NUM_STATISTICS, STATISTICS, statistics
from xgen.data.curate.classify.trees import statistics_of, train_trees
from xgen.data.curate.texts import Texts


def measured(text: str | bytes) -> dict[str, float]:
    data = np.frombuffer(text.encode() if isinstance(text, str) else text, np.uint8)
    out = np.full(NUM_STATISTICS, np.nan, np.float32)
    statistics(data, 0, len(data), out)
    return dict(zip(STATISTICS, out.tolist(), strict=True))


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("ABcd", "upper", 0.5),
        ("a1 b2", "digits", 0.4),
        ("aé", "not_ascii", 2 / 3),
        ("f(x) [y]", "brackets", 0.5),
        ("f(x) [y]", "brackets_matched", 1.0),
        ("f)x( [y}", "brackets_matched", 0.0),
        ("one\ntwo\none", "lines_again", 1 / 3),
        ("    x\n    y\nz", "indented", 2 / 3),
        ("One two. Three four. five", "capital_begins", 0.5),
        ("the cat of the house", "stop_words", 3 / 5),
        ("the the cat", "stop_after_article", 0.5),
        ("the the cat", "word_twice", 1 / 3),
        ("a b a b a b", "distinct", 1 / 3),
        ("a b a b a b", "pairs_again", 0.5),
        ("apple " * 4, "again_16", 0.75),
        ("apple " + "xy " * 30 + "apple", "again_64", 0.5),
        ("ab abcd", "word_length", 3.0),
        ("ab abcd", "longest_word", math.log(4)),
        ("a.b. c", "words_per_end", 0.0),
        ("aabb", "byte_entropy", math.log(2)),
    ],
)
def test_a_statistic_is_what_its_name_says(text: str, name: str, value: float) -> None:
    assert measured(text)[name] == pytest.approx(value, abs=1e-6)


@given(st.binary(max_size=2000))
def test_any_bytes_have_finite_statistics(data: bytes) -> None:
    assert all(map(math.isfinite, measured(data).values()))


def test_trees_find_code_in_prose_and_score_as_they_were_trained() -> None:
    real = {name: sections(texts, most=2) for name, texts in real_texts().items()}
    halved = [halves(real[name]) for name in ("code", "literature")]
    seen, unseen = (Texts.of([*halved[0][half], *halved[1][half]]) for half in (0, 1))
    truth = [np.repeat([0, 1], [len(halved[0][half]), len(halved[1][half])]) for half in (0, 1)]
    trees = train_trees(seen, truth[0], 2, rounds=20, depth=3, rate=0.3, seed=0)
    assert (trees.logits(unseen).argmax(axis=1) == truth[1]).mean() > 0.97
    answers = (statistics_of(unseen)[:, trees.columns] > trees.bounds) @ (1 << np.arange(3))
    plain = trees.values[np.arange(20), answers].astype(np.float64).sum(axis=1)
    assert trees.logits(unseen) == pytest.approx(plain, rel=1e-6)
    assert trees.logits(Texts.of([b"x" * (3 * PIECE), b"x" * PIECE]))[0] == pytest.approx(
        trees.logits(Texts.of([b"x" * PIECE]))[0]
    )
