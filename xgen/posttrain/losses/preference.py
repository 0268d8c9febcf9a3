"""Losses of preference pairs, on the summed log-probabilities of both answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from xgen.spec.sft import PreferenceLoss


@dataclass(frozen=True)
class PreferenceResult:
    """Of each pair [pairs]. Rewards are what the loss compares, without gradient: beta times the log-ratio to the
    reference (dpo), the same per token (ipo, dpo_norm), or beta times the log-probability per token (simpo)."""

    loss: torch.Tensor
    chosen_reward: torch.Tensor
    rejected_reward: torch.Tensor

    @property
    def margin(self) -> torch.Tensor:
        return self.chosen_reward - self.rejected_reward

    @property
    def accuracy(self) -> torch.Tensor:
        """1 where the better answer has the higher reward. A tie is half a hit: a policy that still is the reference
        prefers neither."""
        return torch.where(self.margin == 0, 0.5, (self.margin > 0).float())


def preference_loss(
    spec: PreferenceLoss,
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    chosen_len: torch.Tensor,
    rejected_len: torch.Tensor,
    ref_chosen: torch.Tensor | None = None,
    ref_rejected: torch.Tensor | None = None,
) -> PreferenceResult:
    """All [pairs]: sums of log-probabilities over each answer, of the policy and (but for simpo) of the reference, and
    the tokens that were summed up. Differentiable in `chosen` and `rejected`.

    ipo is per token, as its authors have it (TRL's dpo_trainer.py asked them). The smoothing is that of cDPO
    (https://ericmitchell.ai/cdpo.pdf); the NLL term is per token of each better answer (RPO, arXiv 2404.19733, eq. 1).
    """
    better, worse = chosen.float(), rejected.float()
    if spec.needs_reference:
        assert ref_chosen is not None and ref_rejected is not None
        better, worse = better - ref_chosen, worse - ref_rejected
    if spec.kind != "dpo":
        better, worse = better / chosen_len.clamp(min=1), worse / rejected_len.clamp(min=1)
    delta = better - worse
    if spec.kind == "ipo":
        loss = (delta - 1 / (2 * spec.beta)) ** 2
    elif spec.kind == "simpo":
        loss = -F.logsigmoid(spec.beta * delta - spec.margin)
    else:
        scaled = spec.beta * delta
        loss = -(1 - spec.label_smoothing) * F.logsigmoid(scaled) - spec.label_smoothing * F.logsigmoid(-scaled)
    if spec.nll:
        loss = loss - spec.nll * chosen.float() / chosen_len.clamp(min=1)
    return PreferenceResult(loss, spec.beta * better.detach(), spec.beta * worse.detach())
