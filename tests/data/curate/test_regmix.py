"""Weights of domains from the losses of small runs: of a law that is known, so that the best mixture is known too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from xgen.data import StoreError
from xgen.data.curate.kernel_ridge import fit_kernel, fit_linear
from xgen.data.curate.regmix import Regression, fit, propose, proxy_weights

TOKENS = {"web": 700_000, "code": 150_000, "books": 80_000, "math": 50_000, "talk": 20_000}
SCALE = np.array([0.05, 0.02, 0.05, 0.01, 0.03])
GAIN = np.array([0.3, 0.5, 0.2, 0.6, 0.1])


def law(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """A mean loss over tasks, each of which gains by the logarithm of one domain's share; some domains help others."""
    gains = np.log1p(weights / SCALE) * GAIN
    helped = np.log1p((weights[:, 1] + 0.3 * weights[:, 3]) / 0.02) * 0.2
    return 5 - gains.sum(axis=1) - helped


def measured(count: int, seed: int = 0, noise: float = 0.01) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    weights = proxy_weights(TOKENS, count, seed=seed)
    return weights, law(weights) + np.random.default_rng(seed).normal(0, noise, count)


@pytest.fixture(scope="module")
def regression() -> Regression:
    return fit(list(TOKENS), *measured(96))


def best_of_the_law(caps: NDArray[np.float64] | None = None) -> float:
    """By very many mixtures."""
    drawn = np.random.default_rng(9).dirichlet(np.ones(len(TOKENS)), 400_000)
    if caps is not None:
        drawn = drawn[(drawn <= caps).all(axis=1)]
    return float(law(drawn).min())


def test_proxies_cover_the_simplex_from_one_domain_alone_to_the_corpus() -> None:
    weights = proxy_weights(TOKENS, 512, min_weight=0.002)
    assert weights.shape == (512, 5)
    assert weights.sum(axis=1) == pytest.approx(1)
    assert ((weights == 0) | (weights >= 0.002)).all()
    assert len({tuple(row.round(6)) for row in weights}) == 512
    assert (weights.max(axis=1) > 0.95).any()
    assert ((weights > 0).all(axis=1)).any()
    assert (weights.max(axis=0) > 0.5).all()
    assert weights.mean(axis=0)[0] > weights.mean(axis=0)[4]
    assert (proxy_weights(TOKENS, 512, min_weight=0.002) == weights).all()
    assert (proxy_weights(TOKENS, 512, min_weight=0.002, seed=1) != weights).any()


def test_more_proxies_begin_with_those_of_fewer() -> None:
    caps = {"web": 0.4, "code": 0.5}
    many = proxy_weights(TOKENS, 1100, caps)
    assert (proxy_weights(TOKENS, 16, caps) == many[:16]).all()
    assert len({tuple(row.round(6)) for row in many}) == 1100


@given(caps=st.lists(st.floats(0.21, 1), min_size=5, max_size=5))
def test_caps_hold_for_proxies(caps: list[float]) -> None:
    weights = proxy_weights(TOKENS, 32, dict(zip(TOKENS, caps, strict=True)))
    assert weights.shape == (32, 5)
    assert weights.sum(axis=1) == pytest.approx(1)
    assert (weights <= np.array(caps) + 1e-8).all()


def test_losses_of_mixtures_that_were_not_tried_are_predicted(regression: Regression) -> None:
    assert [score.model for score in regression.scores] == ["kernel", "linear"]
    kernel, linear = regression.scores
    _, losses = measured(96)
    residuals = ((losses - regression.held_out) ** 2).sum() / ((losses - losses.mean()) ** 2).sum()
    assert 1 - residuals == pytest.approx(kernel.r2)
    assert kernel.r2 > 0.97
    assert kernel.rank > 0.97
    assert linear.rank < kernel.rank
    fresh = proxy_weights(TOKENS, 500, seed=77)
    residuals = regression.predict(fresh) - law(fresh)
    true_r2 = 1 - (residuals**2).mean() / law(fresh).var()
    assert true_r2 == pytest.approx(kernel.r2, abs=0.03)  # the score says what is to be expected


def test_the_proposal_is_near_the_best_there_is_and_better_than_the_corpus(regression: Regression) -> None:
    proposed = propose(regression, TOKENS, num_candidates=10_000)
    found = np.array([list(proposed.weights.values())])
    prior = np.array([list(TOKENS.values())]) / sum(TOKENS.values())
    assert sum(proposed.weights.values()) == pytest.approx(1)
    assert law(found)[0] - best_of_the_law() < 0.1 * (law(prior)[0] - best_of_the_law())
    assert proposed.loss == pytest.approx(law(found)[0], abs=0.05)
    assert proposed.prior_loss == pytest.approx(law(prior)[0], abs=0.05)


def test_under_caps_the_proposal_is_near_the_best_that_keeps_them(regression: Regression) -> None:
    caps = {"code": 0.3, "math": 0.1}
    proposed = propose(regression, TOKENS, caps, num_candidates=10_000)
    assert all(proposed.weights[name] <= cap + 1e-9 for name, cap in caps.items())
    best = best_of_the_law(np.array([1, 0.3, 1, 0.1, 1]))
    assert law(np.array([list(proposed.weights.values())]))[0] - best < 0.05


def test_noise_alone_scores_nothing() -> None:
    weights = proxy_weights(TOKENS, 60)
    found = fit(list(TOKENS), weights, np.random.default_rng(3).normal(size=60))
    assert all(score.r2 < 0.1 and score.rank < 0.3 for score in found.scores)


def test_a_line_is_found_exactly_by_the_linear_model() -> None:
    weights = proxy_weights(TOKENS, 60)
    slopes = np.array([1.0, -2.0, 0.5, 0.0, 3.0])
    assert fit_linear(weights, weights @ slopes + 4)(weights) == pytest.approx(weights @ slopes + 4, abs=1e-3)
    assert fit(list(TOKENS), weights, weights @ slopes + 4).scores[0].model == "linear"


def test_a_mixture_is_predicted_alike_whatever_is_beside_it() -> None:
    weights, losses = measured(40)
    kernel = fit_kernel(weights, losses)
    many = kernel(np.repeat(weights, 200, axis=0)).reshape(40, 200)
    assert many == pytest.approx(np.repeat(kernel(weights)[:, None], 200, axis=1), abs=1e-9)


def test_what_cannot_be_fitted_is_refused() -> None:
    weights, losses = measured(40)
    with pytest.raises(StoreError, match="regmix: 5 proxies are too few; train 10 at least"):
        fit(list(TOKENS), weights[:5], losses[:5])
    losses[7] = np.nan
    with pytest.raises(StoreError, match="regmix: the loss of proxy 7 is nan; leave out what diverged"):
        fit(list(TOKENS), weights, losses)
    with pytest.raises(StoreError, match=r"all domains together may have 0\.5 of the budget; raise max_epochs"):
        proxy_weights(TOKENS, 10, dict.fromkeys(TOKENS, 0.1))
    with pytest.raises(StoreError, match="there are domains without text; leave them out"):
        proxy_weights({"web": 10, "code": 0}, 10)
