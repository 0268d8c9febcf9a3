"""From log-probabilities of packed answers to the loss, what they weigh in its gradient, and what is measured. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from xgen.posttrain.losses import Normalizer, Sampled, policy_loss
from xgen.spec.rl import RlLoss

# Means over the tokens of an update, in parts that add up; the greatest importance is none of them.
MEASURED = ("rl_ratio", "rl_clip_ratio", "rl_kl", "rl_importance", "rl_entropy")


@dataclass(frozen=True)
class Weighed:
    """Parts of the update: `loss` and `measured` (in the order of MEASURED) add up over micro-batches and ranks."""

    loss: torch.Tensor
    weights: torch.Tensor  # [rows, seq_len]: dloss / dlogprobs
    measured: torch.Tensor
    importance_max: torch.Tensor


def weigh_answers(
    spec: RlLoss,
    logprobs: torch.Tensor,
    entropies: torch.Tensor,
    sampled: Sampled,
    total: Normalizer,
    over_context: Callable[[torch.Tensor], torch.Tensor],
) -> Weighed:
    """`logprobs` and `entropies` [rows, seq_len] without gradient."""
    leaf = logprobs.detach().requires_grad_()
    result = policy_loss(spec, leaf, sampled, total, over_context)
    (weights,) = torch.autograd.grad(result.loss, leaf)
    metrics = result.metrics
    entropy = torch.where(sampled.answers >= 0, entropies, 0.0).sum() / total.tokens
    measured = torch.stack([metrics.ratio, metrics.clip_fraction, metrics.kl, metrics.importance, entropy])
    return Weighed(result.loss.detach(), weights, measured, metrics.importance_max)
