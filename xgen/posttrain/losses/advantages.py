"""Advantages of sampled answers over the other answers to the same prompt."""

from __future__ import annotations

import torch

_EPS = 1e-4  # TRL's


def group_advantages(rewards: torch.Tensor, scale: bool) -> torch.Tensor:
    """Reward [prompts, group] minus the mean of its group, divided by the spread (of a sample) where `scale`.

    nan is an answer without a verdict: no part of mean and spread, and nan in the result, as is one that has no other
    to be compared with. Such answers are to train nothing.
    """
    rewards = rewards.double()  # equal rewards are exactly their mean
    known = ~rewards.isnan()
    count = known.sum(1, keepdim=True)
    mean = torch.nanmean(rewards, dim=1, keepdim=True)
    advantages = rewards - mean
    if scale:
        variance = (advantages**2).nansum(1, keepdim=True) / (count - 1).clamp(min=1)
        advantages = advantages / (variance.sqrt() + _EPS)
    return torch.where(count > 1, advantages, torch.nan).float()
