"""What all ranks tell each other on the CPU, before they train."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch.distributed as dist

from xgen.runs import Refused

if TYPE_CHECKING:
    from xgen.train.trainer import JobTrainer

Answer = TypeVar("Answer")


def from_rank_0(trainer: JobTrainer, ask: Callable[[], Answer]) -> Answer:
    """What rank 0 answers, on all ranks; the others do not even ask. A refusal is raised on all of them."""
    said: list[Any] = [None]
    if trainer.context.rank == 0:
        try:
            said = [ask()]
        except Refused as refusal:
            said = [refusal]
    dist.broadcast_object_list(said, src=0, group=trainer.cpu_group)
    if isinstance(said[0], Refused):
        raise said[0]
    answer: Answer = said[0]
    return answer


def from_all(trainer: JobTrainer, said: Answer) -> list[Answer]:
    """What every rank says, in their order."""
    heard = [said] * trainer.context.world_size
    dist.all_gather_object(heard, said, group=trainer.cpu_group)
    return heard
