"""What all ranks tell each other in every step: the digests of the samples they took, whether to stop, and what a
person asks of them (asked.py)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist

from xgen.data import MODULUS
from xgen.runs import STOP_SIGNALS, StopFlag

_HALF = MODULUS // 2
_SIGNALS = [number.name for number in reversed(STOP_SIGNALS)]  # SIGTERM, which leaves less time, before SIGUSR2


class Agreement:
    """One small all-reduce on a CPU group, begun when the step's data is there and read when the step is done: the
    device never waits for it.

    Every rank calls `begin` and `end` in turn. Of ranks that share their samples (tensor, context and pipeline
    parallelism) one `counts`.
    """

    def __init__(
        self, stop: StopFlag, group: dist.ProcessGroup, counts: bool, asking: Callable[[], int] = lambda: 0
    ) -> None:
        """`asking`: the number of a request, on one of the ranks; 0 on the others."""
        self._stop, self._group, self._counts, self._asking = stop, group, counts, asking
        self._sums = torch.empty(0)
        self._pending: dist.Work | None = None
        self.asked = 0  # number of the request that was known at the last `begin`
        self.signal = ""  # name of the one that some rank had seen at the last `begin`, '' for none; never cleared

    def begin(self, digest: int = 0) -> None:
        """Tell this rank's part of the step's digest, a number below 2^64."""
        # int64 in two's complement: its sums wrap, which is what modulo 2^64 means.
        signed = digest - MODULUS if digest >= _HALF else digest
        told = [signed if self._counts else 0, self._asking(), *(self._stop.signal == name for name in _SIGNALS)]
        self._sums = torch.tensor(told, dtype=torch.int64)
        self._pending = dist.all_reduce(self._sums, group=self._group, async_op=True)

    def end(self) -> int:
        """The sum of the digests over all ranks, modulo 2^64."""
        assert self._pending is not None, "nothing has begun"
        self._pending.wait()
        self._pending = None
        digest, self.asked, *ranks = self._sums.tolist()
        self.signal = next((name for name, number in zip(_SIGNALS, ranks, strict=True) if number), "")
        return int(digest) % MODULUS
