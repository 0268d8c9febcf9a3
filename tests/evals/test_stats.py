"""Intervals that cover the truth, tests that find a difference as often as there is one: by counting or simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from xgen.evals.bounds import Floats, t_quantile, upper_bound
from xgen.evals.stats import (
    average_difference,
    average_interval,
    holm,
    mean_interval,
    paired_difference,
    published_difference,
    series_difference,
    unpaired_difference,
)

SIMULATED = 4000
TAIL = np.array([0.025])
THIRDS, QUARTERS, TENTHS = (np.linspace(0, 1, n + 1) for n in (3, 4, 10))


def binomial(n: int, p: float) -> Floats:
    """Of 0 to n successes."""
    return np.array([math.comb(n, x) * p**x * (1 - p) ** (n - x) for x in range(n + 1)])


def answers(right: int, of: int) -> Floats:
    return np.repeat([1.0, 0.0], [right, of - right])


def covered(values: Floats, counts: Floats, truth: float) -> NDArray[np.bool_]:
    """Of each row of counts, whether its interval holds the truth."""
    high, low = upper_bound(values, counts, TAIL), 1 - upper_bound(1 - values, counts, TAIL)
    return (low <= truth + 1e-12) & (truth - 1e-12 <= high)


@pytest.mark.parametrize("n", [10, 25, 100, 500])
@pytest.mark.parametrize("p", [0, 0.02, 0.3, 0.9, 0.98, 1])
def test_of_right_and_wrong_95_of_100_intervals_cover(n: int, p: float) -> None:
    right = np.arange(n + 1.0)
    inside = covered(np.array([0.0, 1.0]), np.stack((n - right, right), axis=1), p)
    assert binomial(n, p) @ inside >= 0.95


@pytest.mark.parametrize(("right", "n"), [(0, 1), (0, 10), (7, 10), (24, 25), (25, 25), (250, 500), (499, 500)])
def test_of_right_and_wrong_it_is_the_interval_of_clopper_and_pearson(right: int, n: int) -> None:
    interval = mean_interval(answers(right, n))
    assert interval.mean == right / n
    if right < n:
        assert binomial(n, interval.high)[: right + 1].sum() == pytest.approx(0.025, rel=0.06)
    if right:
        assert binomial(n, interval.low)[right:].sum() == pytest.approx(0.025, rel=0.06)
    assert interval.high == 1 if right == n else interval.low == 0 if not right else interval.low < right / n


@pytest.mark.parametrize("n", [10, 25, 100, 500])
@pytest.mark.parametrize(
    ("values", "odds"),
    [
        (THIRDS, (1, 1, 1, 1)),
        (THIRDS, (0, 0, 0.05, 0.95)),
        (THIRDS, (0.98, 0, 0.01, 0.01)),
        (QUARTERS, (0.02, 0, 0, 0, 0.98)),
        (QUARTERS, (0.01, 0.02, 0.05, 0.2, 0.72)),
        (QUARTERS, (0.5, 0.3, 0.15, 0.04, 0.01)),
        (TENTHS, (0, 0, 0, 0, 0, 0, 0.01, 0.03, 0.1, 0.3, 0.56)),
    ],
)
def test_of_shares_95_of_100_intervals_cover(n: int, values: Floats, odds: Sequence[float]) -> None:
    share = np.array(odds) / sum(odds)
    counts = np.random.default_rng(n).multinomial(n, share, SIMULATED).astype(float)
    assert covered(values, counts, float(values @ share)).mean() >= 0.945


def test_shares_that_vary_less_have_a_narrower_interval_than_right_and_wrong() -> None:
    shares = mean_interval([0.75, 1.0] * 50)
    mixed = mean_interval(answers(88, 100))
    assert shares.high - shares.low < 0.5 * (mixed.high - mixed.low)


def test_many_samples_have_the_interval_of_the_normal_distribution() -> None:
    scores = np.random.default_rng(0).choice(QUARTERS, 20_000)
    reach = 1.96 * scores.std() / math.sqrt(len(scores))
    interval = mean_interval(scores)
    assert interval.low == pytest.approx(scores.mean() - reach, abs=reach / 50)
    assert interval.high == pytest.approx(scores.mean() + reach, abs=reach / 50)


@pytest.mark.parametrize("freedom", [1, 2, 10, 100, 10**6])
def test_quantiles_of_student_are_those_of_tables(freedom: int) -> None:
    tables = {1: 12.706, 2: 4.303, 10: 2.228, 100: 1.984, 10**6: 1.960}
    assert t_quantile(0.025, freedom) == pytest.approx(tables[freedom], abs=6e-4)


@pytest.mark.parametrize("n", [8, 32])
def test_of_losses_95_of_100_intervals_cover(n: int) -> None:
    losses = 2 + 0.1 * np.random.default_rng(n).gamma(8, size=(1500, n))  # documents differ, and more upwards
    intervals = [mean_interval(row, bounded=False) for row in losses]
    assert np.mean([one.low <= 2.8 <= one.high for one in intervals]) >= 0.94


def test_one_loss_tells_nothing_of_others() -> None:
    one = mean_interval([2.5], bounded=False)
    assert (one.mean, one.low, one.high) == (2.5, -math.inf, math.inf)
    assert paired_difference([2.5], [2.0], bounded=False).p == pytest.approx(1)


@pytest.mark.parametrize(
    ("n", "at"),
    [(25, (0.3, 0.7)), (10, (0.0, 1.0)), (10, (0.98, 0.98)), (25, (0.98, 0.98)), (100, (0.98, 0.98)), (25, (0.9, 1.0))],
)
def test_of_an_average_of_tasks_95_of_100_intervals_cover(n: int, at: tuple[float, float]) -> None:
    truths = np.linspace(*at, 13)
    right = np.random.default_rng(n).binomial(n, truths, (300, 13))
    interval = cache(lambda row: average_interval([answers(x, n) for x in row]))
    intervals = [interval(tuple(sorted(row))) for row in right.tolist()]
    assert np.mean([one.low <= truths.mean() <= one.high for one in intervals]) >= 0.94


@pytest.mark.parametrize("n", [10, 60])
def test_of_a_weighted_average_of_shares_95_of_100_intervals_cover(n: int) -> None:
    odds = [(0, 0, 0.05, 0.95), (0.1, 0.1, 0.1, 0.7), (0.3, 0.2, 0.2, 0.3), (0, 0.01, 0.01, 0.98)]
    sizes, weights = (n, n, 2 * n, 5 * n), (1, 2, 3, 4)
    truth = float(np.average(np.array(odds) @ THIRDS, weights=weights))
    rng = np.random.default_rng(n)
    inside = 0
    for _ in range(250):
        strata = [rng.choice(THIRDS, size, p=of) for size, of in zip(sizes, odds, strict=True)]
        interval = average_interval(strata, weights)
        inside += interval.low <= truth <= interval.high
    assert inside >= 0.94 * 250


def test_an_average_is_weighted_and_known_better_than_its_parts() -> None:
    strata = [answers(8, 10), answers(50, 100)]
    average = average_interval(strata, [3, 1])
    assert average.mean == pytest.approx((3 * 0.8 + 0.5) / 4)
    many = average_interval([answers(80, 100)] * 13)
    one = mean_interval(answers(80, 100))
    assert many.high - many.low == pytest.approx((one.high - one.low) / math.sqrt(13), rel=0.05)


def test_tasks_of_different_difficulty_are_no_noise() -> None:
    strata = [answers(95, 100), answers(5, 100)]
    average, pooled = average_interval(strata), mean_interval(np.concatenate(strata))
    assert average.high - average.low < 0.55 * (pooled.high - pooled.low)


@pytest.mark.parametrize("right", [10, 7, 0])
def test_an_average_of_one_task_is_that_task(right: int) -> None:
    assert average_interval([answers(right, 10)]) == mean_interval(answers(right, 10))


def test_an_average_of_tasks_of_one_sample_each_is_as_uncertain_as_can_be() -> None:
    one = average_interval([[1.0], [0.0], [1.0]])
    assert one.low < 0.2 and one.high == 1


@pytest.mark.parametrize("n", [10, 25, 100, 500])
@pytest.mark.parametrize(("both", "one"), [(0.5, 0.2), (0.9, 0.02), (0, 0.3), (1, 0)])
def test_no_difference_of_paired_answers_is_found_in_5_of_100(n: int, both: float, one: float) -> None:
    """`one`: share of the samples that only one of the two knows, either as often."""
    counts = np.random.default_rng(n).multinomial(n, [one / 2, 1 - one, one / 2], SIMULATED).astype(float)
    found = ~covered(np.array([0.0, 0.5, 1.0]), counts, 0.5)
    assert both + one <= 1 and found.mean() <= 0.05


@pytest.mark.parametrize("n", [10, 25, 100, 500])
def test_no_difference_of_paired_shares_is_found_in_5_of_100(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = (rng.choice(THIRDS, (SIMULATED, n), p=[0.1, 0.1, 0.2, 0.6]) for _ in range(2))
    values = np.linspace(0, 1, 7)
    places = np.round(3 * (a - b)).astype(int) + 3
    counts = np.stack([(places == at).sum(1) for at in range(7)], axis=1).astype(float)
    assert (~covered(values, counts, 0.5)).mean() <= 0.055


@cache
def found(a: int, b: int, n: int) -> bool:
    return unpaired_difference(answers(a, n), answers(b, n)).p < 0.05


@pytest.mark.parametrize(("n", "p"), [(10, 0.5), (10, 0.9), (25, 0.7), (25, 0.9), (25, 0.98), (100, 0.98)])
def test_no_difference_on_other_samples_is_found_in_5_of_100(n: int, p: float) -> None:
    odds = binomial(n, p)
    likely = [x for x in range(n + 1) if odds[x] > 1e-4]
    chance = [odds[a] * odds[b] for a in likely for b in likely if found(max(a, b), min(a, b), n)]
    assert sum(chance) <= 0.05


def test_a_difference_is_found_where_there_are_samples_enough() -> None:
    rng = np.random.default_rng(1)
    better, worse = (rng.random((200, 500)) < p for p in (0.90, 0.84))
    found = [unpaired_difference(a, b).p < 0.05 for a, b in zip(better, worse, strict=True)]
    assert np.mean(found) > 0.7  # of a z-test: 0.80
    same = rng.random((100, 500))
    paired = [paired_difference(row < 0.90, row < 0.84).p < 0.05 for row in same]
    assert np.mean(paired) == 1  # on the same samples, where one knows all that the other does


def test_a_difference_within_noise_is_called_that() -> None:
    rng = np.random.default_rng(2)
    same = rng.random(200) < 0.8
    other = np.where(rng.random(200) < 0.1, ~same, same)  # some answers flip, either way
    difference = paired_difference(same, other)
    assert difference.p > 0.05 and difference.low < 0 < difference.high
    assert paired_difference(same, same).p == 1


@pytest.mark.parametrize(("only_a", "only_b"), [(1, 0), (6, 0), (10, 3), (30, 11), (3, 3)])
def test_of_right_and_wrong_it_is_the_exact_test_of_mcnemar(only_a: int, only_b: int) -> None:
    a = np.repeat([1, 0, 1], [only_a, only_b, 50])
    b = np.repeat([0, 1, 1], [only_a, only_b, 50])
    exact = min(1, 2 * binomial(only_a + only_b, 0.5)[: min(only_a, only_b) + 1].sum())
    assert paired_difference(a, b).p == pytest.approx(exact, rel=0.07)


def test_the_interval_ends_at_nothing_where_the_p_value_is_5_percent() -> None:
    rng = np.random.default_rng(3)
    close = 0
    for _ in range(60):
        a, b = rng.choice(THIRDS, (2, 40), p=[0.2, 0.1, 0.2, 0.5])
        b = np.maximum(0, b - rng.choice([0, 1 / 3], 40, p=[0.7, 0.3]))
        for one in (
            paired_difference(a, b),
            unpaired_difference(a, b),
            paired_difference(a, b, bounded=False),
            average_difference([(a, b, True), (b, a, False), (a, b, True)]),
        ):
            assert (one.p < 0.05) == (one.low > 0 or one.high < 0)
            close += 0.02 < one.p < 0.1
    assert close > 10


def test_differences_of_tasks_add_up_to_one_that_is_real() -> None:
    rng = np.random.default_rng(4)
    pairs = []
    for _ in range(13):
        base = rng.random(100)
        pairs.append(((base < 0.88).astype(float), (rng.permutation(base) < 0.82).astype(float), True))
    single = [paired_difference(a, b).p for a, b, _ in pairs]
    together = average_difference(pairs)
    assert together.p < 0.01 and sum(p < 0.05 for p in holm(single)) <= 1
    assert together.mean == pytest.approx(np.mean([a.mean() - b.mean() for a, b, _ in pairs]))


@pytest.mark.parametrize(("rho", "steps"), [(0.0, 20), (0.0, 200), (0.5, 200), (0.9, 500), (0.9, 2000), (0.97, 2000)])
def test_series_whose_neighbours_are_alike_differ_in_5_of_100(rho: float, steps: int) -> None:
    rng = np.random.default_rng(steps)
    noise = rng.normal(size=(1000, steps + 400))
    slow = np.zeros_like(noise)
    for step in range(1, noise.shape[1]):
        slow[:, step] = rho * slow[:, step - 1] + noise[:, step]
    series = slow[:, 400:] + rng.normal(size=(1000, steps))
    truth = 0.25
    differences = [series_difference(row + truth, np.zeros(steps)) for row in series]
    assert np.mean([one.low <= truth <= one.high for one in differences]) >= 0.94
    shifted = [series_difference(row, np.zeros(steps)).p < 0.05 for row in series]
    assert np.mean(shifted) <= 0.06
    if rho == 0:  # what takes neighbours as independent is as good here, and finds too much elsewhere
        return
    naive = np.abs(series.mean(1)) > 1.96 * series.std(1) / math.sqrt(steps)
    assert naive.mean() > 0.1


def test_a_real_difference_of_losses_is_found_below_their_common_noise() -> None:
    rng = np.random.default_rng(5)
    data = np.cumsum(rng.normal(size=500)) / 20 + 3  # what both read
    a, b = (data + 0.01 * rng.normal(size=500) for _ in range(2))
    assert series_difference(a + 0.005, b).p < 0.01
    assert series_difference(a, b).p > 0.05
    with pytest.raises(ValueError, match="7 steps are too few"):
        series_difference(a[:7], b[:7])


def test_a_published_score_is_taken_to_be_as_uncertain_as_so_many_answers_can_be() -> None:
    ours = [answers(450, 500)] * 4
    near, far = published_difference(ours, 0.895), published_difference(ours, 0.85)
    assert near.p > 0.05 and near.low < 0 < near.high
    assert far.p < 0.001 and far.mean == pytest.approx(0.05)
    alone = average_interval(ours)
    assert far.high - far.low > 1.3 * (alone.high - alone.low)
    assert published_difference([answers(10, 10)], 1.0).p == 1


def test_several_tests_are_held_to_one_level() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.7, 0.6]) == [1, 1]
    rng = np.random.default_rng(6)
    assert np.mean([min(holm(rng.random(20).tolist())) < 0.05 for _ in range(2000)]) <= 0.065


def test_a_difference_beyond_doubt_has_a_p_value_near_0() -> None:
    assert 0 <= paired_difference(np.ones(500), np.zeros(500)).p < 1e-100
    assert paired_difference([2.0, 2.0, 2.0], [1.0, 1.0, 1.0], bounded=False).p == 0


def test_what_is_no_score_is_refused() -> None:
    with pytest.raises(ValueError, match="no scores"):
        mean_interval([])
    with pytest.raises(ValueError, match=r"scores from 0 to 95; write shares from 0 to 1"):
        mean_interval([95.0, 0.0])
    with pytest.raises(ValueError, match="broadcast"):
        paired_difference([1.0, 0.0], [1.0, 0.0, 1.0])
