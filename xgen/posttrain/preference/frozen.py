"""The initial weights beside those in training, sharded alike: one more copy of the rank's own shards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


class Frozen:
    """Weights of a model at the time of its making. They change places with the model's own, in place: whatever splits
    the model over ranks also splits them, and there is no second model."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._kept = [_shard(parameter).clone() for parameter in _trained(model)]

    @contextmanager
    def instead(self) -> Iterator[None]:
        """For passes without gradient, between optimizer steps."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for parameter, kept in zip(_trained(self._model), self._kept, strict=True):
            shard = _shard(parameter)
            current = shard.clone()
            shard.copy_(kept)
            kept.copy_(current)
        # The root of FSDP keeps what it gathered in a pass without gradient.
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def _trained(model: torch.nn.Module) -> Iterator[torch.nn.Parameter]:
    return (parameter for parameter in model.parameters() if parameter.requires_grad)


def _shard(parameter: torch.nn.Parameter) -> torch.Tensor:
    values = parameter.detach()
    return values.to_local() if isinstance(values, DTensor) else values
