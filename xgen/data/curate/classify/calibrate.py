"""From the logits of one or several members to probabilities that mean what they say.

The members are weighted and each label gets a bias (bias-corrected temperature scaling, Alexandari et al. 2020, with a
temperature for every member), fitted on documents that no member was trained on. Both a model's calibration and the
weighing of an ensemble are this one fit. The probabilities are those of the seeds' proportions of labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PRIOR = 1e-3  # a document's worth of pull to weight 1 and bias 0, so that labels that never mix stay finite
_ROUNDS = 50
_DIGITS = 6  # what is kept: an order of additions must not show


@dataclass(frozen=True)
class Combination:
    """Logits are sum_m scales[m] * logits_m + biases."""

    scales: tuple[float, ...]
    biases: tuple[float, ...]

    def __call__(self, logits: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        out = np.zeros_like(logits[0])
        for scale, part in zip(self.scales, logits, strict=True):
            out += scale * part
        out += np.array(self.biases)
        return out


def combine(logits: Sequence[NDArray[np.float64]], labels: NDArray[np.int64]) -> Combination:
    """The combination of least log loss in which no member counts against itself.

    `logits` holds [documents, labels] of each member. Targets are smoothed as Platt's are, by one document.
    """
    used = list(range(len(logits)))
    while True:
        scales, biases = _fit(np.stack([logits[member] for member in used]), labels)
        if scales.min() >= 0 or len(used) == 1:
            break
        used.pop(int(np.argmin(scales)))
    whole = np.zeros(len(logits))
    whole[used] = np.maximum(scales, 0)
    return Combination(tuple(_rounded(whole)), tuple(_rounded(biases)))


def _fit(parts: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Damped Newton. `parts` [members, documents, labels]."""
    num_members, num_documents, num_labels = parts.shape
    targets = np.eye(num_labels)[labels]
    sure = (num_documents + 1) / (num_documents + 2)
    targets = targets * sure + (1 - targets) * (1 - sure) / (num_labels - 1)
    start = np.concatenate([np.full(num_members, 1 / num_members), np.zeros(num_labels)])
    values = start.copy()

    def loss_of(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = np.tensordot(values[:num_members], parts, 1) + values[num_members:]
        logs = log_softmax(logits)
        pull = _PRIOR * float(((values - start) ** 2).sum()) / 2
        return -float((targets * logs).sum()) / num_documents + pull, np.exp(logs)

    # Of logits after each parameter: [parameters, documents, labels].
    units = np.broadcast_to(np.eye(num_labels)[:, None, :], (num_labels, num_documents, num_labels))
    slopes = np.concatenate([parts, units])
    loss, shares = loss_of(values)
    for _ in range(_ROUNDS):
        gradient = np.einsum("pnk,nk->p", slopes, shares - targets) / num_documents + _PRIOR * (values - start)
        weighted = slopes * shares
        means = weighted.sum(axis=2)
        curve = np.einsum("pnk,qnk->pq", weighted, slopes) - np.einsum("pn,qn->pq", means, means)
        step = np.linalg.solve(curve / num_documents + _PRIOR * np.eye(len(values)), gradient)
        size = 1.0
        while size > 1e-6:
            next_loss, next_shares = loss_of(values - size * step)
            if next_loss < loss:
                break
            size /= 2
        else:
            break
        values, shares = values - size * step, next_shares
        if loss - next_loss < 1e-12:
            break
        loss = next_loss
    return values[:num_members], values[num_members:]


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    moved = logits - logits.max(axis=1, keepdims=True)
    out: NDArray[np.float64] = moved - np.log(np.exp(moved).sum(axis=1, keepdims=True))
    return out


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]
