"""RegMix (arXiv 2407.01492): weights of domains from many small runs, by a regression of their losses.

`proxy_weights` draws mixtures around the corpus's own, each of which a small model is trained on; `fit` learns from
their losses what a mixture's would be; `propose` asks it about very many and takes the mean of the best.

The published regression is LightGBM's. What a domain's share does to a loss saturates: the first percent helps most, at
a scale that differs by domain and loss. So mixtures are compared by the logarithms of their shares, by kernel ridge
regression (kernel_ridge.py). On the first 65 of RegMix's own 512 proxies, its target (loss on Pile-CC) of held-out
proxies is predicted with a rank correlation of 0.97, by LightGBM with 0.92 at best, by plain shares with 0.69. For the
losses on code and on mathematics alone, which jump with the first of that text, LightGBM is better or alike (0.96 and
0.95 against 0.89 and 0.95).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.kernel_ridge import fit_kernel, fit_linear
from xgen.data.errors import StoreError

_Array = NDArray[np.float64]
_Model = Literal["kernel", "linear"]
_MODELS: dict[_Model, Callable[[_Array, _Array], Callable[[_Array], _Array]]] = {
    "kernel": fit_kernel,
    "linear": fit_linear,
}
_STRENGTHS = (0.1, 5.0)  # of the Dirichlet distribution, RegMix's: from nearly one domain alone to nearly the prior
_NEAR = (10.0, 1000.0)  # around the best mixtures
_TEMPERATURE = 2.0  # RegMix's: the prior is flattened, or rare domains are never seen
_ROUNDS = 20  # of drawing, before caps are said to be too narrow
_BATCH = 512  # drawn at a time, however few are wanted: more of them later begin with the same


@dataclass(frozen=True)
class Score:
    """How well losses of runs that the fit has not seen are predicted."""

    model: _Model
    r2: float
    rank: float  # Spearman's correlation: what picking a mixture depends on


@dataclass(frozen=True)
class Regression:
    """Losses of mixtures, from their weights."""

    domains: tuple[str, ...]
    predict: Callable[[_Array], _Array]  # [mixtures] from [mixtures, domains]
    scores: tuple[Score, ...]  # of all models that were tried; the one that predicts first
    held_out: _Array  # [runs]: what it predicts of each, fitted without it


@dataclass(frozen=True)
class Proposal:
    """The weights that the regression likes best."""

    weights: Mapping[str, float]
    loss: float  # predicted
    prior_loss: float  # predicted, of the corpus's own mixture
    score: Score


def proxy_weights(
    tokens: Mapping[str, int],
    num_proxies: int,
    max_weights: Mapping[str, float] | None = None,
    min_weight: float = 2e-4,
    seed: int = 0,
) -> _Array:
    """Weights of [num_proxies, domains of `tokens`]; each row sums to 1, and none is the same. The first of more are
    these.

    A weight below `min_weight` is 0: the proxy would see too little of the domain to tell. `max_weights` are of the
    run that is planned (its epochs times a domain's tokens over its budget). Raises StoreError where they leave no
    room.
    """
    prior, most = _prior(tokens), _caps(tokens, max_weights or {})
    flat = prior ** (1 / _TEMPERATURE)
    rng = np.random.default_rng(seed)
    kept = np.empty((0, len(prior)))
    for _ in range(_ROUNDS * -(-num_proxies // _BATCH)):
        kept = np.concatenate([kept, _draw(flat / flat.sum(), _STRENGTHS, _BATCH, most, min_weight, rng)])
        # Low strengths give one domain alone, again and again.
        _, first = np.unique(kept.round(6), axis=0, return_index=True)
        kept = kept[np.sort(first)]
        if len(kept) >= num_proxies:
            return kept[:num_proxies]
    what = f"of {num_proxies} different mixtures there are only {len(kept)} that keep max_epochs of all domains"
    raise StoreError("regmix", what, "raise max_epochs, or lower the budget")


def fit(domains: Sequence[str], weights: _Array, losses: _Array, num_folds: int = 5, seed: int = 0) -> Regression:
    """The regression whose predictions for runs held out in turn are nearest.

    Raises StoreError for losses that are no numbers (a proxy that diverged), and for too few runs.
    """
    if bad := np.flatnonzero(~np.isfinite(losses)).tolist():
        raise StoreError("regmix", f"the loss of proxy {bad[0]} is {losses[bad[0]]}", "leave out what diverged")
    if len(losses) < 2 * num_folds:
        raise StoreError("regmix", f"{len(losses)} proxies are too few", f"train {2 * num_folds} at least")
    folds = np.random.default_rng(seed).permutation(len(losses)) % num_folds
    found: list[tuple[Score, _Array]] = []
    for model, fit_model in _MODELS.items():
        predicted = np.empty(len(losses))
        for fold in range(num_folds):
            held = folds == fold
            predicted[held] = fit_model(weights[~held], losses[~held])(weights[held])
        total = float(((losses - losses.mean()) ** 2).sum())
        r2 = 1 - float(((losses - predicted) ** 2).sum()) / total if total else 0.0
        found.append((Score(model, r2, _rank_correlation(predicted, losses)), predicted))
    found.sort(key=lambda one: -one[0].r2)
    scores = tuple(score for score, _ in found)
    return Regression(tuple(domains), _MODELS[scores[0].model](weights, losses), scores, found[0][1])


def propose(
    regression: Regression,
    tokens: Mapping[str, int],
    max_weights: Mapping[str, float] | None = None,
    num_candidates: int = 50_000,
    num_best: int = 100,
    seed: int = 1,
) -> Proposal:
    """The mean of the `num_best` mixtures of lowest predicted loss: the best alone is one that the fit errs about.

    RegMix draws all candidates around the prior; here half as many again are drawn, twice, around the best so far.
    """
    assert tuple(tokens) == regression.domains
    prior, most = _prior(tokens), _caps(tokens, max_weights or {})
    flat = prior ** (1 / _TEMPERATURE)
    rng = np.random.default_rng(seed)
    best = _draw(flat / flat.sum(), _STRENGTHS, num_candidates, most, 0.0, rng)
    for _ in range(3):
        best = best[np.argsort(regression.predict(best), kind="stable")[:num_best]]
        around = best.mean(axis=0)
        best = np.concatenate([best, _draw(around, _NEAR, num_candidates // 2, most, 0.0, rng)])
    loss, prior_loss = regression.predict(np.stack([around, prior])).tolist()
    return Proposal(dict(zip(tokens, around.tolist(), strict=True)), loss, prior_loss, regression.scores[0])


def _prior(tokens: Mapping[str, int]) -> _Array:
    counts = np.array(list(tokens.values()), dtype=np.float64)
    if not len(counts) or counts.min() <= 0:
        raise StoreError("regmix", "there are domains without text", "leave them out")
    prior: _Array = counts / counts.sum()
    return prior


def _caps(tokens: Mapping[str, int], max_weights: Mapping[str, float]) -> _Array:
    caps = np.array([min(1.0, max_weights.get(name, 1.0)) for name in tokens])
    if caps.sum() < 1:
        what = f"all domains together may have {caps.sum():.3g} of the budget"
        raise StoreError("regmix", what, "raise max_epochs, or lower the budget")
    return caps


def _draw(
    centre: _Array, strengths: tuple[float, float], count: int, most: _Array, least: float, rng: np.random.Generator
) -> _Array:
    """Up to `count` mixtures around `centre`; what is above its cap goes to the others."""
    strength = np.exp(rng.uniform(np.log(strengths[0]), np.log(strengths[1]), size=(count, 1)))
    drawn = rng.standard_gamma(centre * strength) + 1e-9 * centre
    drawn /= drawn.sum(axis=1, keepdims=True)
    for _ in centre:
        over = drawn > most
        room = np.where(over | (drawn == most), 0.0, drawn)
        excess = np.where(over, drawn - most, 0.0).sum(axis=1, keepdims=True)
        drawn = np.where(over, most, drawn + room * (excess / np.maximum(room.sum(axis=1, keepdims=True), 1e-300)))
    drawn[drawn < least] = 0.0
    drawn /= drawn.sum(axis=1, keepdims=True)
    kept: _Array = drawn[(drawn <= most + 1e-9).all(axis=1)]
    return kept


def _rank_correlation(one: _Array, other: _Array) -> float:
    ranks = np.stack([np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (one, other)])
    one, other = ranks - ranks.mean(axis=1, keepdims=True)
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))
