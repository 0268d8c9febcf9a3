"""From log-probabilities of packed pairs to the loss, what they weigh in its gradient, and what is measured. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from xgen.posttrain.losses import PreferenceResult, answer_sums, by_token, preference_loss
from xgen.spec.sft import PreferenceLoss

MEASURED = ("accuracy", "margin", "chosen_reward", "rejected_reward")
OverRanks = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class PackedPairs:
    """answers [rows, seq_len]: 2k and 2k+1 at what predicts a token of the better and the worse answer of a row's k-th
    pair, else -1. pairs [rows, most]: their numbers in the store, -1 where a row has fewer. reference [rows, most, 2]:
    log-probabilities of both answers by the initial weights; None for a loss that needs none."""

    answers: torch.Tensor
    pairs: torch.Tensor
    reference: torch.Tensor | None


@dataclass(frozen=True)
class Weighed:
    """Parts of the step: `loss` and `measured` (in the order of MEASURED) add up over micro-batches and ranks."""

    loss: torch.Tensor
    weights: torch.Tensor  # [rows, seq_len]: dloss / dlogprobs
    measured: torch.Tensor


def sums_and_lengths(logprobs: torch.Tensor, packed: PackedPairs, over_ranks: OverRanks) -> torch.Tensor:
    """[2, rows, 2 * most]: of each answer its log-probability and its tokens. `over_ranks` adds up what the ranks of
    context parallelism have."""
    most = 2 * packed.pairs.shape[1]
    both = (logprobs, torch.ones_like(logprobs))
    return over_ranks(torch.stack([answer_sums(values, packed.answers, most) for values in both]))


def pair_losses(
    spec: PreferenceLoss, sums: torch.Tensor, lengths: torch.Tensor, packed: PackedPairs
) -> PreferenceResult:
    """Of the pairs that there are, row after row."""
    there = packed.pairs >= 0
    reference = (None, None) if packed.reference is None else packed.reference[there].unbind(1)
    return preference_loss(
        spec, sums[:, 0::2][there], sums[:, 1::2][there], lengths[:, 0::2][there], lengths[:, 1::2][there], *reference
    )


def weigh_pairs(
    spec: PreferenceLoss, logprobs: torch.Tensor, packed: PackedPairs, whole: torch.Tensor, over_ranks: OverRanks
) -> Weighed:
    """`logprobs` [rows, seq_len] without gradient; `whole`: pairs of the step, over all ranks."""
    sums, lengths = sums_and_lengths(logprobs, packed, over_ranks)
    sums.requires_grad_()
    result = pair_losses(spec, sums, lengths, packed)
    loss = result.loss.sum() / whole
    (by_answer,) = torch.autograd.grad(loss, sums)
    measured = torch.stack([getattr(result, name).sum() for name in MEASURED]) / whole
    return Weighed(loss.detach(), by_token(by_answer, packed.answers), measured)
