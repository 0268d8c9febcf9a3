"""How ranks agree to stop: one flag, the maximum over all, asked for at one step and read at the next."""

from __future__ import annotations

import signal

import torch
import torch.distributed as dist

from xgen.runs import StopFlag


class StopAgreement:
    """The all-reduce runs on a CPU group while the step runs, so the device never waits for it.

    Every rank calls `begin` and `decided` the same number of times, in turn.
    """

    def __init__(self, stop: StopFlag, group: dist.ProcessGroup) -> None:
        self._stop, self._group = stop, group
        self._flag = torch.zeros(1, dtype=torch.int32)
        self._pending: dist.Work | None = None

    def begin(self) -> None:
        self._flag.fill_(signal.Signals[self._stop.signal].value if self._stop else 0)
        self._pending = dist.all_reduce(self._flag, op=dist.ReduceOp.MAX, group=self._group, async_op=True)

    def decided(self) -> str:
        """Name of the signal that some rank had seen when `begin` was called, '' for none."""
        if self._pending is not None:
            self._pending.wait()
            self._pending = None
        number = int(self._flag.item())
        return signal.Signals(number).name if number else ""
