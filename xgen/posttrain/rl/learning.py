"""What a step learns from its groups: which answers, each with which advantage. The same on every rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from xgen.posttrain.losses import group_advantages
from xgen.posttrain.rl.answers import Group
from xgen.posttrain.rl.rows import Piece
from xgen.spec import Rl


def advantages(job: Rl, groups: Sequence[Group]) -> NDArray[np.float32]:
    """[groups, group]; nan for an answer that does not train: without a verdict, or cut and filtered."""
    rewards = [
        [math.nan if answer.judged.reward is None else answer.judged.reward for answer in group.answers]
        for group in groups
    ]
    shape = len(groups), job.rollout.group  # of no groups too
    found = group_advantages(torch.tensor(rewards, dtype=torch.float32).view(shape), job.loss.scales)
    if job.overlong.filter:
        cut = torch.tensor([[answer.truncated for answer in group.answers] for group in groups], dtype=torch.bool)
        found = torch.where(cut.view(shape), torch.nan, found)
    array: NDArray[np.float32] = found.numpy()
    return array


def learnt(job: Rl, groups: Sequence[Group]) -> list[Group]:
    """With dynamic sampling only the groups whose answers differ."""
    return [group for group in groups if group.teaches] if job.dynamic_sampling else list(groups)


def pieces(
    groups: Sequence[Group], advantage: NDArray[np.float32], prompt: Callable[[int], NDArray[np.int32]]
) -> list[Piece]:
    """Of all answers that train; `prompt`: tokens by number."""
    return [
        Piece(prompt(group.number), answer.tokens, answer.logprobs, float(of_answer))
        for group, of_group in zip(groups, advantage, strict=True)
        for answer, of_answer in zip(group.answers, of_group, strict=True)
        if not math.isnan(of_answer)
    ]
