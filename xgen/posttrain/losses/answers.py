"""Answers packed into rows: `answers` [rows, seq_len] has the number of a token's answer within its row, -1 outside."""

from __future__ import annotations

import torch


def answer_sums(values: torch.Tensor, answers: torch.Tensor, most: int) -> torch.Tensor:
    """Sums [rows, most] over the tokens of each answer, as fp32; 0 where the row has fewer. Differentiable in `values`
    [rows, seq_len], of which those outside of answers count for nothing, be they nan."""
    inside = answers >= 0
    # Added one by one: in fp32 a hundred thousand tokens are off by tens of nats, and on GPUs by others each time.
    wanted = torch.where(inside, values.double(), 0.0)
    sums = wanted.new_zeros(answers.shape[0], most)
    return sums.scatter_add(1, torch.where(inside, answers, 0).long(), wanted).float()


def by_token(per_answer: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """To every token [rows, seq_len] what belongs to its answer in `per_answer` [rows, most]; 0 outside of answers."""
    inside = answers >= 0
    return torch.where(inside, per_answer.gather(1, torch.where(inside, answers, 0).long()), 0)
