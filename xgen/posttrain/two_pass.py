"""Losses that are no sum over tokens, without whole logits: log-probabilities first, gradients after.

A loss that is any function of the log-probabilities of a batch is computed from them, and with it what they weigh in
its gradient; a second pass over the chunks adds up their weighted gradients. So its peak memory is that of SFT.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torchtitan.components.loss import BaseLoss, compute_logprobs

from xgen.train.learnt import LearntLoss, learnt_positions


class TokenLogprobs(BaseLoss):
    """Of one chunk: keeps log-probabilities without `weights`, and with them is the weighted sum."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseLoss.Config):
        temperature: float = 1.0  # that the answers were sampled at: the logits are divided by it

    def __init__(self, config: Config, *, compile_config: Any = None) -> None:
        del compile_config
        self._temperature = config.temperature
        self.with_entropy = False
        self.kept: list[torch.Tensor] = []  # [2, chunk]: log-probabilities and entropies

    def __call__(
        self,
        pred: torch.Tensor,
        labels: torch.Tensor,
        global_valid_tokens: torch.Tensor | None = None,
        **inputs: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        del global_valid_tokens
        logits = pred if self._temperature == 1 else pred / self._temperature
        weights = inputs.get("weights")
        if weights is not None:
            return (weights * compute_logprobs(logits, labels)).sum(), {}
        found = compute_logprobs(logits, labels, return_entropy=self.with_entropy)
        both = torch.cat(found) if self.with_entropy else torch.cat([found, torch.zeros_like(found)])
        self.kept.append(both)
        return both.new_zeros(()), {}


class TwoPassLoss(LearntLoss):
    """`logprobs`, then `with_gradient`."""

    @dataclass(kw_only=True, slots=True)
    class Config(LearntLoss.Config):
        loss_fn: TokenLogprobs.Config = field(default_factory=TokenLogprobs.Config)

    loss_fn: TokenLogprobs

    @torch.no_grad()
    def logprobs(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """[batch, seq_len] in fp32, 0 where there is no label."""
        return self._kept(hidden, labels)[0]

    @torch.no_grad()
    def logprobs_and_entropies(self, hidden: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both [batch, seq_len] in fp32; entropies in nats."""
        self.loss_fn.with_entropy = True
        logprobs, entropies = self._kept(hidden, labels)
        self.loss_fn.with_entropy = False
        return logprobs, entropies

    def with_gradient(
        self, loss: torch.Tensor, hidden: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """The loss, of whose gradient the log-probability of every label has a weight [batch, seq_len]."""
        linear, _ = self(hidden, labels, weights=weights)
        return linear - linear.detach() + loss.detach()

    def _kept(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.loss_fn.kept = []
        self(hidden.detach(), labels)
        found, self.loss_fn.kept = torch.cat(self.loss_fn.kept, dim=1), []
        at = learnt_positions(labels, self.num_chunks)
        whole = found.new_zeros(2, labels.numel())
        whole[:, at.index[: at.num]] = found[:, : at.num]
        return whole.view(2, *labels.shape)
