"""Calibration, figures and bands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgen.data.curate.classify.bands import Bands, count_scores
from xgen.data.curate.classify.calibrate import combine, log_softmax
from xgen.data.curate.classify.figures import auc, cuts, figures
from xgen.data.curate.classify.model import log_odds, probabilities


def drawn(num_labels: int, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True logits, and labels drawn from them."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, num_labels))
    return logits, (logits + random.gumbel(size=logits.shape)).argmax(axis=1)


@pytest.mark.parametrize("num_labels", [2, 5])
def test_calibration_finds_the_scale_and_the_bias_that_were_hidden(num_labels: int) -> None:
    logits, labels = drawn(num_labels, 20_000)
    hidden = np.linspace(-1, 1, num_labels)
    found = combine([(logits - hidden) * 7], labels)
    assert found.scales[0] == pytest.approx(1 / 7, rel=0.03)
    assert np.array(found.biases) - np.mean(found.biases) == pytest.approx(hidden - hidden.mean(), abs=0.08)
    names = tuple("abcde"[:num_labels])
    before, after = (figures(z, labels, names) for z in ((logits - hidden) * 7, found([(logits - hidden) * 7])))
    assert after.ece < 0.01 < before.ece
    assert after.log_loss < before.log_loss


def test_a_member_that_knows_nothing_counts_little_and_two_good_ones_are_better_than_one() -> None:
    logits, labels = drawn(3, 8_000)
    random = np.random.default_rng(1)
    one, two, noise = (logits * k + random.normal(0, 2, logits.shape) for k in (1, 1, 0))
    found = combine([one, two, noise], labels)
    assert found.scales[0] == pytest.approx(found.scales[1], rel=0.15)
    assert found.scales[2] < 0.05
    alone = combine([one], labels)
    losses = [figures(z, labels, ("a", "b", "c")).log_loss for z in (found([one, two, noise]), alone([one]))]
    assert losses[0] < losses[1] - 0.05


def test_a_member_that_says_the_opposite_is_left_out() -> None:
    logits, labels = drawn(2, 2_000)
    noisy = logits + np.random.default_rng(2).normal(0, 1, logits.shape)
    assert combine([noisy, -logits - noisy], labels).scales[1] == 0


def test_labels_that_never_mix_stay_finite() -> None:
    labels = np.arange(100) % 2
    sure = np.where(labels[:, None] == np.arange(2), 50.0, -50.0)
    found = probabilities(combine([sure], labels)([sure]))
    assert 0.97 < found.max(axis=1).min() < 1


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_auc_is_the_share_of_pairs_in_the_right_order(rows: list[tuple[int, bool]]) -> None:
    good, bad = ([score for score, positive in rows if positive == wanted] for wanted in (True, False))
    if not good or not bad:
        return
    pairs = [(a > b) + (a == b) / 2 for a in good for b in bad]
    found = auc(np.array([float(score) for score, _ in rows]), np.array([positive for _, positive in rows]))
    assert found == pytest.approx(sum(pairs) / len(pairs))


def test_figures_of_a_known_table() -> None:
    share = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    found = figures(np.log(share), np.array([0, 1, 0, 1]), ("yes", "no"))
    assert (found.accuracy, found.documents) == (0.75, 4)
    assert found.ece == pytest.approx((2 * 0.4 + 0.4 + 0.2) / 4)
    assert found.log_loss == pytest.approx(-np.log([0.9, 0.1, 0.6, 0.8]).mean(), rel=1e-5)
    assert (found.labels["yes"].precision, found.labels["yes"].recall) == (pytest.approx(2 / 3, rel=1e-5), 1)
    assert (found.labels["no"].precision, found.labels["no"].recall) == (1, 0.5)


@pytest.mark.parametrize("count", [300, 2_000])
def test_a_cut_keeps_what_was_wanted_in_nineteen_trainings_of_twenty(count: int) -> None:
    random = np.random.default_rng(0)
    held = random.normal(size=200_000)
    held_good = np.arange(len(held)) % 2 == 0
    failed = np.zeros(3)
    for _ in range(300):
        fitted = random.normal(size=count)
        found = cuts(fitted, np.ones(count, bool), held, held_good)
        failed += [cut.kept < cut.wanted for cut in found]
        assert found[0].rejected <= found[1].rejected <= found[2].rejected
    assert (failed / 300 <= 0.09).all()  # 0.05, and three deviations of 300 draws
    assert failed[2] > 0  # it does not keep everything to be sure


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6))
def test_log_odds_and_probabilities_agree(row: list[float]) -> None:
    logits = np.array([row])
    for label in range(len(row)):
        share = float(np.exp(log_softmax(logits)[0, label]))
        assert 1 / (1 + np.exp(-np.float64(log_odds(logits, label)[0]))) == pytest.approx(share, rel=1e-4, abs=1e-12)


def test_bands_are_equal_shares_and_do_not_depend_on_the_parts() -> None:
    scores = np.random.default_rng(0).normal(1, 3, 50_000).astype(np.float32)
    bands = Bands.fit(count_scores(scores))
    assert np.bincount(bands(scores), minlength=10) / len(scores) == pytest.approx(np.full(10, 0.1), abs=0.003)
    assert Bands.fit(sum(map(count_scores, np.array_split(scores, 7)), np.int64(0))) == bands  # type: ignore[arg-type]
    assert (np.diff(bands(np.sort(scores)).astype(int)) >= 0).all()


def test_bands_of_bytes_have_equal_bytes() -> None:
    random = np.random.default_rng(1)
    scores, sizes = random.normal(0, 4, 20_000).astype(np.float32), random.integers(1, 10_000, 20_000)
    bands = Bands.fit(count_scores(scores, sizes), 4)(scores)
    assert np.bincount(bands, sizes, 4) / sizes.sum() == pytest.approx(np.full(4, 0.25), abs=0.01)
