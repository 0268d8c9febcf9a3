"""How good a classifier is on documents that it has not seen; pydantic, for the figures are part of a model's file."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from xgen.data.curate.classify.calibrate import log_softmax

_BINS = 15  # of confidence, equally wide
KEPT = (0.99, 0.98, 0.95)
_RISK = 0.05  # that a bound keeps less than was wanted


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LabelFigures(_Figures):
    documents: int
    auc: float  # of this label against the rest
    precision: float
    recall: float


class Bin(_Figures):
    """Documents whose most probable label had about this probability, and how many of them had that label."""

    documents: int
    confidence: float
    accuracy: float


class Cut(_Figures):
    """Documents below `log_odds` go.

    The bound was found on other documents, such that it keeps at least `wanted` of the good ones with 95% confidence;
    of too few documents for that it is the lowest good score. A plain quantile keeps less in every second training.
    """

    wanted: float
    log_odds: float
    kept: float  # of the good ones, here
    rejected: float  # of the bad ones, here


class Figures(_Figures):
    documents: int
    accuracy: float
    auc: float  # mean over labels
    log_loss: float  # nats
    ece: float  # expected calibration error of the most probable label
    labels: dict[str, LabelFigures]
    reliability: tuple[Bin, ...]


def figures(logits: NDArray[np.float64], truth: NDArray[np.int64], labels: tuple[str, ...]) -> Figures:
    """`logits` [documents, labels] are calibrated, `truth` [documents] numbers of labels; every label occurs."""
    logs = log_softmax(logits)
    guesses, confidence = logs.argmax(axis=1), np.exp(logs.max(axis=1))
    right = guesses == truth
    number = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins = []
    for chosen in (number == place for place in range(_BINS)):
        if chosen.any():
            means = float(confidence[chosen].mean()), float(right[chosen].mean())
            bins.append(Bin(documents=int(chosen.sum()), confidence=_short(means[0]), accuracy=_short(means[1])))
    by_label = {}
    for place, name in enumerate(labels):
        mine, guessed = truth == place, guesses == place
        rest = np.delete(logs, place, axis=1)
        margin = logs[:, place] - np.logaddexp.reduce(rest, axis=1)
        both = float((mine & guessed).sum())
        by_label[name] = LabelFigures(
            documents=int(mine.sum()),
            auc=_short(auc(margin, mine)),
            precision=_short(both / max(1, int(guessed.sum()))),
            recall=_short(both / int(mine.sum())),
        )
    return Figures(
        documents=len(truth),
        accuracy=_short(float(right.mean())),
        auc=_short(sum(found.auc for found in by_label.values()) / len(labels)),
        log_loss=_short(-float(logs[np.arange(len(truth)), truth].mean())),
        ece=_short(sum(found.documents * abs(found.confidence - found.accuracy) for found in bins) / len(truth)),
        labels=by_label,
        reliability=tuple(bins),
    )


def cuts(
    fitted: NDArray[np.floating],
    fitted_good: NDArray[np.bool_],
    held: NDArray[np.floating],
    held_good: NDArray[np.bool_],
) -> tuple[Cut, ...]:
    """Bounds of log-odds found on one part, and what they do on another."""
    found = []
    for wanted in KEPT:
        good = np.sort(fitted[fitted_good])
        bound = float(good[_num_lost(len(good), 1 - wanted)])
        kept, rejected = (held[held_good] >= bound).mean(), (held[~held_good] < bound).mean()
        found.append(Cut(wanted=wanted, log_odds=bound, kept=_short(float(kept)), rejected=_short(float(rejected))))
    return tuple(found)


def _num_lost(count: int, share: float) -> int:
    """How many of `count` documents may lie below a bound, so that less than `share` of all do, but for _RISK."""
    lost, reached = 0, 0.0
    while True:
        ways = math.lgamma(count + 1) - math.lgamma(lost + 1) - math.lgamma(count - lost + 1)
        reached += math.exp(ways + lost * math.log(share) + (count - lost) * math.log1p(-share))
        if reached > _RISK:
            return max(lost - 1, 0)
        lost += 1


def auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Probability that a positive scores above a negative; ties count half."""
    values, number, counts = np.unique(scores, return_inverse=True, return_counts=True)
    assert 0 < positive.sum() < len(positive), values.shape
    ranks = np.cumsum(counts) - (counts - 1) / 2
    num_positive = int(positive.sum())
    above = float(ranks[number][positive].sum()) - num_positive * (num_positive + 1) / 2
    return above / (num_positive * (len(positive) - num_positive))


def _short(value: float) -> float:
    return float(f"{value:.6g}")
