"""The weights of a trainer's model as an engine takes them: whole, by torchtitan's name, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.distributed.tensor import DTensor

from xgen.model.lora import adapters_of, is_adapter, merge
from xgen.spec import Lora


def full_weights(model: torch.nn.Module, lora: Lora | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight, gathered from all ranks that hold a part of it (FSDP, TP), in the dtype that is trained; with the
    adapters of `lora` merged into it.

    Collective: all ranks of the model's mesh take every item, and each gets it whole. Between steps only. What is
    gathered at a time is a tensor, and the queries, keys and values of a layer.
    """
    for prefix, part in _parts(model):
        state = part.state_dict(prefix=prefix)
        for name in state:
            if is_adapter(name):
                continue
            weight = _whole(state[name])
            a, b = adapters_of(name)
            yield name, merge(weight, _whole(state[a]), _whole(state[b]), lora) if lora and a in state else weight


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _parts(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """By prefix of their names: the layers one by one, and what else there is. The state of all at once would have
    every layer's queries, keys and values gathered, as torchtitan splits the matrix that they are in the model."""
    for name, child in model.named_children():
        if isinstance(child, torch.nn.ModuleDict | torch.nn.ModuleList):
            yield from ((f"{name}.{key}.", layer) for key, layer in child.named_children())
        else:
            yield f"{name}.", child
