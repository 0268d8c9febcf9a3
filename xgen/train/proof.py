"""What was consumed, proven: the digests of a step's samples, summed over the ranks that read them."""

from __future__ import annotations

import torch
import torch.distributed as dist

from xgen.data import MODULUS

_HALF = MODULUS // 2


class DataProof:
    """One small all-reduce a step on a CPU group, begun when the step's data is there and read after the step.

    Every rank calls `begin` and `end` in turn. Of ranks that share their samples (tensor, context and pipeline
    parallelism) one `counts`.
    """

    def __init__(self, group: dist.ProcessGroup, counts: bool) -> None:
        self._group, self._counts = group, counts
        self._sum = torch.zeros(1, dtype=torch.int64)
        self._pending: dist.Work | None = None

    def begin(self, digest: int) -> None:
        """Add this rank's part of the step, a number below 2^64."""
        # int64 in two's complement: its sums wrap, which is what modulo 2^64 means.
        signed = digest - MODULUS if digest >= _HALF else digest
        self._sum.fill_(signed if self._counts else 0)
        self._pending = dist.all_reduce(self._sum, group=self._group, async_op=True)

    def end(self) -> int:
        """The sum over all ranks."""
        assert self._pending is not None, "no step has begun"
        self._pending.wait()
        self._pending = None
        return int(self._sum.item()) % MODULUS
