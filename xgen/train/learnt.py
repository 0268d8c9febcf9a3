"""The loss in chunks, of which the output layer computes only what is learnt from: no prompts, no padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Replicate
from torchtitan.components.loss import ChunkedLossWrapper

from xgen.data.samples import IGNORE


class LearntLoss(ChunkedLossWrapper):
    """torchtitan's, on the positions that have a label: in post-training about half of them have none."""

    @dataclass(kw_only=True, slots=True)
    class Config(ChunkedLossWrapper.Config):
        pass

    def __call__(
        self,
        pred: torch.Tensor,
        labels: torch.Tensor,
        global_valid_tokens: torch.Tensor | None = None,
        **loss_inputs: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        at = learnt_positions(labels, self.num_chunks)
        inputs = {name: take(value, at) for name, value in loss_inputs.items()}
        found: tuple[torch.Tensor, dict[str, torch.Tensor]] = super().__call__(
            take(pred, at), take(labels, at, beyond=IGNORE), global_valid_tokens, **inputs
        )
        return found


def every_token(config: ChunkedLossWrapper.Config) -> ChunkedLossWrapper.Config:
    """The same as if everything were learnt: what is, only data can say."""
    if not isinstance(config, LearntLoss.Config):
        return config
    return ChunkedLossWrapper.Config(num_chunks=config.num_chunks, loss_fn=config.loss_fn)


@dataclass(frozen=True)
class Positions:
    """`index` into all positions of the batch, the first `num` of them learnt; the rest fills up the chunks."""

    index: torch.Tensor
    num: int


def learnt_positions(labels: torch.Tensor, multiple: int) -> Positions:
    """A multiple of so many, and never none: every rank computes something in every chunk."""
    found = (labels.flatten() != IGNORE).nonzero()[:, 0]
    num = len(found)
    missing = -num % multiple if num else multiple
    return Positions(torch.cat([found, found.new_zeros(missing)]), num)


def take(values: torch.Tensor, at: Positions, beyond: int | None = None) -> torch.Tensor:
    """[1, positions, …] of [batch, seq_len, …]; `beyond` is put where nothing is learnt."""
    if isinstance(values, DTensor):
        # The output layer of tensor parallelism takes what all its ranks have alike.
        assert all(isinstance(placement, Replicate) for placement in values.placements)
        taken: torch.Tensor = DTensor.from_local(
            take(values.to_local(), at, beyond), values.device_mesh, values.placements, run_check=False
        )
        return taken
    taken = values.flatten(0, 1).index_select(0, at.index)
    if beyond is not None:
        taken[at.num :] = beyond
    return taken.unsqueeze(0)
