"""The linear model against a plain one."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data.curate.classify.test_features import buckets
from xgen.data.curate.classify.features import PIECE, NGrams
from xgen.data.curate.classify.linear import Linear, shuffled, train_linear
from xgen.data.curate.texts import Texts

GRAMS = NGrams("words", 1, 2, 12)
COLOURS = [
    f"the {colour} thing number {number} is {colour}" for number in range(40) for colour in ("red", "blue", "odd")
]
TRUTH = np.arange(len(COLOURS)) % 3


@pytest.fixture(scope="module")
def trained() -> Linear:
    return train_linear(Texts.of(COLOURS), TRUTH, 3, GRAMS, epochs=5, rate=2.0, seed=0)


def test_logits_are_the_mean_weight_and_the_bias(trained: Linear) -> None:
    texts = ["a blue thing", "", "nothing of this: \n red"]
    found = trained.logits(Texts.of(texts))
    for row, text in zip(found, texts, strict=True):
        rows = trained.weights[buckets(text, GRAMS)].astype(np.float64)
        assert row == pytest.approx((rows.mean(axis=0) if len(rows) else 0) + trained.bias, rel=1e-9)


def test_it_learns_what_tells_the_labels_apart(trained: Linear) -> None:
    texts = Texts.of(["some red paint", "some blue paint", "some odd paint"])
    assert trained.logits(texts).argmax(axis=1).tolist() == [0, 1, 2]


def test_a_long_text_is_the_mean_of_its_pieces_by_bytes(trained: Linear) -> None:
    first, second = ("red paint " * PIECE)[:PIECE], "blue sky " * 700
    whole, *parts = trained.logits(Texts.of([first + second, first, second]))
    share = len(first) / len(first + second)
    assert whole == pytest.approx(parts[0] * share + parts[1] * (1 - share), rel=1e-9)


def test_a_score_does_not_depend_on_the_batch(trained: Linear) -> None:
    together = trained.logits(Texts.of(COLOURS))
    alone = [trained.logits(Texts.of([text]))[0] for text in COLOURS]
    assert np.array_equal(together, np.array(alone))


def test_order_is_a_permutation_that_the_seed_fixes() -> None:
    assert sorted(shuffled(1000, 3)) == list(range(1000))
    assert shuffled(1000, 3).tolist() == shuffled(1000, 3).tolist() != shuffled(1000, 4).tolist()
    assert shuffled(6, 0).tolist() == shuffled(6, 0).tolist()
