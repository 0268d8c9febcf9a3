"""Losses of the GRPO family, on the log-probabilities of sampled answers that are packed into rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from xgen.posttrain.losses.answers import answer_sums, by_token
from xgen.spec.rl import RlLoss


@dataclass(frozen=True)
class Normalizer:
    """What trains in the step, over all ranks and micro-batches: so its loss does not depend on how it is split."""

    tokens: float
    answers: float
    max_tokens: int  # that an answer may have: dr_grpo's constant


@dataclass(frozen=True)
class Sampled:
    """Answers in rows: [rows, seq_len] where by token, [rows, most] where by answer. Nothing has a gradient."""

    answers: torch.Tensor  # number of the token's answer within its row, -1 outside
    lengths: torch.Tensor  # tokens of each answer
    advantages: torch.Tensor  # of each answer; nan: it does not train
    old: torch.Tensor | None = None  # log-probabilities before the batch's first update; None: this is the first
    sampler: torch.Tensor | None = None  # those that the sampler had; nan: unknown, no correction
    reference: torch.Tensor | None = None  # those of the initial weights


@dataclass(frozen=True)
class PolicyMetrics:
    """Parts of means over all tokens of the step: they add up over rows, micro-batches and ranks. But for the last."""

    ratio: torch.Tensor
    clip_fraction: torch.Tensor  # of tokens, whose gradient the clipping ends
    kl: torch.Tensor  # to the reference; 0 without one
    importance: torch.Tensor
    importance_max: torch.Tensor


@dataclass(frozen=True)
class PolicyResult:
    """`loss` is these rows' part of the step's."""

    loss: torch.Tensor
    metrics: PolicyMetrics


def policy_loss(
    spec: RlLoss,
    logps: torch.Tensor,
    sampled: Sampled,
    total: Normalizer,
    over_ranks: Callable[[torch.Tensor], torch.Tensor] = lambda sums: sums,
) -> PolicyResult:
    """Clipped policy gradient (arXiv 1707.06347) of `logps` [rows, seq_len]; those outside of answers count for
    nothing. `over_ranks` adds up sums over answers [rows, most] whose tokens other ranks hold (context parallelism).

    The correction for the sampler is truncated importance sampling (https://fengyao.notion.site/off-policy-rl), the
    divergence the k3 estimate (http://joschu.net/blog/kl-approx.html).
    """
    advantages = by_token(sampled.advantages, sampled.answers)
    trains = (sampled.answers >= 0) & ~advantages.isnan()
    advantages = torch.where(trains, advantages, 0.0)

    def log_ratio(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
        return torch.where(trains, above.float() - below.float(), 0.0)

    old = logps.detach() if sampled.old is None else sampled.old
    ratio = log_ratio(logps, old).exp()
    bounded = ratio.clamp(1 - spec.clip_low, 1 + spec.clip_high)
    per_token = -torch.minimum(ratio * advantages, bounded * advantages)

    importance = torch.ones_like(ratio)
    if spec.importance != "none":
        assert sampled.sampler is not None
        gap = log_ratio(old, sampled.sampler).nan_to_num(nan=0.0)
        if spec.importance == "sequence":
            gap = by_token(over_ranks(answer_sums(gap, sampled.answers, sampled.lengths.shape[1])), sampled.answers)
        importance = gap.exp().clamp(max=spec.importance_cap)
    per_token = per_token * importance

    divergence = torch.zeros_like(ratio)
    if sampled.reference is not None:
        above = log_ratio(sampled.reference, logps)
        # Times the ratio, through which its gradient is that of the divergence (DeepSeek-V3.2, arXiv 2512.02556, 3.1).
        divergence = ratio * (above.exp() - above - 1)
        per_token = per_token + spec.kl * divergence

    loss = (per_token * torch.where(trains, _token_weights(spec, sampled, total), 0.0)).sum()
    clipped = torch.where(advantages < 0, ratio < 1 - spec.clip_low, (ratio > 1 + spec.clip_high) & (advantages > 0))

    def part(values: torch.Tensor) -> torch.Tensor:
        return torch.where(trains, values.detach(), 0.0).sum() / total.tokens

    most = torch.where(trains, importance, 0.0).max()
    return PolicyResult(
        loss, PolicyMetrics(part(ratio), part(clipped.float()), part(divergence), part(importance), most)
    )


def _token_weights(spec: RlLoss, sampled: Sampled, total: Normalizer) -> torch.Tensor:
    """What a token counts for in the loss of the step."""
    if spec.kind == "grpo":
        return 1 / (by_token(sampled.lengths.float(), sampled.answers).clamp(min=1) * total.answers)
    each = total.tokens if spec.kind == "dapo" else total.answers * total.max_tokens
    return torch.full(sampled.answers.shape, 1 / each, device=sampled.answers.device)
