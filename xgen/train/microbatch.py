"""A micro-batch as one rank sees it: on its device, and of each sequence the part that is its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from xgen.train.trainer import JobTrainer

Given = tuple[dict[str, torch.Tensor], torch.Tensor]  # of the loader: tensors by name, and labels
_OF_THE_MODEL = ("input", "positions")


@dataclass(frozen=True)
class MicroBatch:
    """`extras`: tensors that the objective asks for and the model does not. Those of the shape of the labels were
    split over the ranks of context parallelism like them."""

    tokens: torch.Tensor
    labels: torch.Tensor
    model_inputs: dict[str, Any]  # positions and masks
    extras: dict[str, torch.Tensor]


def prepare(trainer: JobTrainer, inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> MicroBatch:
    """Moved, masked and split, as torchtitan does it."""
    moved = {name: value.to(trainer.device) for name, value in inputs.items()}
    extras = {name: moved.pop(name) for name in inputs if name not in _OF_THE_MODEL}
    tokens, targets, model_inputs = trainer.post_dataloading_process(moved, labels.to(trainer.device))
    return MicroBatch(tokens, targets, model_inputs, _split(trainer, extras, labels.shape))


def _split(trainer: JobTrainer, extras: dict[str, torch.Tensor], shape: torch.Size) -> dict[str, torch.Tensor]:
    """torchtitan's balance of the ranks follows from the sequence's length alone: two calls split alike."""
    mesh = trainer.parallel_dims.get_optional_mesh("cp")
    split = {name: value for name, value in extras.items() if value.shape == shape}
    if mesh is None or not split:
        return extras
    from torchtitan.distributed.context_parallel import cp_shard  # not before xgen.model has settled the device

    balancer = trainer.config.parallelism.context_parallel_load_balancer
    parts, _ = cp_shard(mesh, tuple(split.values()), None, balancer)
    return extras | dict(zip(split, parts, strict=True))
