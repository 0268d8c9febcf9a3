"""The weights of a trainer's model as an engine takes them: whole, by torchtitan's name, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.distributed.tensor import DTensor


def full_weights(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight, gathered from all ranks that hold a part of it (FSDP, TP), in the dtype that is trained.

    Collective: all ranks of the model's mesh take every item, and each gets it whole. Between steps only. What is
    gathered at a time is a tensor, and the queries, keys and values of a layer.
    """
    for prefix, part in _parts(model):
        for name, tensor in part.state_dict(prefix=prefix).items():
            yield name, tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _parts(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """By prefix of their names: the layers one by one, and what else there is. The state of all at once would have
    every layer's queries, keys and values gathered, as torchtitan splits the matrix that they are in the model."""
    for name, child in model.named_children():
        if isinstance(child, torch.nn.ModuleDict | torch.nn.ModuleList):
            yield from ((f"{name}.{key}.", layer) for key, layer in child.named_children())
        else:
            yield f"{name}.", child
