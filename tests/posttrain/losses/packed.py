"""Answers after their prompts, packed into rows as our trainers take them, and what our model makes of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torchtitan.components.loss import compute_logprobs

from xgen.data.samples import IGNORE
from xgen.model.hf import hf_name, parameter_shapes, to_hf
from xgen.spec import ModelSpec


@dataclass(frozen=True)
class Conversation:
    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True)
class Rows:
    """[rows, seq_len]; `place` has the row of each conversation and the number of its answer there."""

    tokens: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    answers: torch.Tensor
    place: list[tuple[int, int]]

    def by_answer(self, values: Sequence[float] | torch.Tensor, fill: float = 0.0) -> torch.Tensor:
        """Values of the conversations as [rows, most]."""
        out = torch.full((len(self.tokens), int(self.answers.max()) + 1), fill)
        for value, (row, number) in zip(values, self.place, strict=True):
            out[row, number] = value
        return out

    def by_conversation(self, sums: torch.Tensor) -> torch.Tensor:
        return torch.stack([sums[place] for place in self.place])

    def by_token(self, values: torch.Tensor) -> torch.Tensor:
        """Values of the answers' tokens, padded at the right, as [rows, seq_len]."""
        out = torch.zeros(self.tokens.shape)
        for (row, number), of_answer in zip(self.place, values, strict=True):
            inside = self.answers[row] == number
            out[row, inside] = of_answer[: int(inside.sum())]
        return out


def pack(rows: Sequence[Sequence[Conversation]], seq_len: int) -> Rows:
    """Padding is a document of its own."""
    shape = (len(rows), seq_len)
    tokens, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORE)
    positions, answers = torch.zeros(shape, dtype=torch.int32), torch.full(shape, -1)
    place = []
    for row, conversations in enumerate(rows):
        at = 0
        for number, one in enumerate(conversations):
            ids = torch.tensor(one.prompt + one.answer)
            end, first = at + len(ids), at + len(one.prompt) - 1
            tokens[row, at:end], positions[row, at:end] = ids, torch.arange(len(ids), dtype=torch.int32)
            labels[row, first : end - 1], answers[row, first : end - 1] = torch.tensor(one.answer), number
            place.append((row, number))
            at = end
        positions[row, at:] = torch.arange(seq_len - at, dtype=torch.int32)
    return Rows(tokens, labels, positions, answers, place)


def logprobs(model: Any, rows: Rows) -> torch.Tensor:
    """[rows, seq_len], 0 where there is no label."""
    logits = model(rows.tokens, rows.positions, model.get_attention_masks(rows.positions))
    found: torch.Tensor = compute_logprobs(logits, rows.labels)
    return found


def hf_gradients(model: torch.nn.Module, spec: ModelSpec) -> dict[str, torch.Tensor]:
    """As transformers' model of the same weights would have them: they are turned as its weights are."""
    kept = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.copy_(parameter.grad)
        state = {name: value.clone() for name, value in model.state_dict().items()}
        for name, parameter in model.named_parameters():
            parameter.copy_(kept[name])
    return {hf_name(name): to_hf(name, state[name], spec) for name in parameter_shapes(spec)}
