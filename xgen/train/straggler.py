"""The slowest rank: every rank times a piece of work of its own, without a word to the others, and all are compared.

The steps of a training take the same time on every rank, because all wait for the slowest. So each does the same
product of matrices now and then, which shows a throttled or a shared device, and says how long it waited for data.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
import torch.distributed as dist

# Size of the matrices and number of products: some milliseconds of work, which a launch of some microseconds is not.
_ON_GPU, _ON_CPU = (4096, 32), (256, 1)
_TRIES = 3  # the fastest counts: an interruption of one of them says nothing


@dataclass(frozen=True)
class Slowest:
    """The rank whose work took longest, its node, and how much longer than that of the median rank."""

    rank: int
    node: str
    ratio: float
    data_rank: int  # the one that waited longest for data since the last report
    data_wait: float  # seconds


class Straggler:
    """Every rank calls `report` at the same steps."""

    def __init__(self, group: dist.ProcessGroup, device: torch.device, node: str) -> None:
        self._group, self._device, self._node = group, device, node
        self._nodes: list[str] = []  # of all ranks, once they have told each other
        size, self._products = _ON_CPU if device.type == "cpu" else _ON_GPU
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        self._matrix = torch.ones(size, size, device=device, dtype=dtype)
        self._product = torch.empty_like(self._matrix)

    def report(self, data_wait: float) -> Slowest:
        if not self._nodes:
            self._nodes = [self._node] * dist.get_world_size(self._group)
            dist.all_gather_object(self._nodes, self._node, group=self._group)
        own = torch.tensor([self._time(), data_wait], dtype=torch.float64)
        gathered = [torch.empty_like(own) for _ in range(dist.get_world_size(self._group))]
        dist.all_gather(gathered, own, group=self._group)
        times, waits = zip(*(part.tolist() for part in gathered), strict=True)
        rank, data_rank = times.index(max(times)), waits.index(max(waits))
        return Slowest(rank, self._nodes[rank], times[rank] / statistics.median(times), data_rank, waits[data_rank])

    def _time(self) -> float:
        """Seconds of the fastest try; the device has nothing else to do meanwhile."""
        seconds = []
        for _ in range(_TRIES):
            self._wait()
            began = time.perf_counter()
            for _ in range(self._products):
                torch.mm(self._matrix, self._matrix, out=self._product)
            self._wait()
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    def _wait(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
