"""What tests do to writer processes and to the pace of the training."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def writers(pids: list[int]) -> list[int]:
    """The writer process of each rank, in order; waits for those that are being started."""
    deadline = time.monotonic() + 60
    while True:
        found = {parent: pid for pid, parent in _writers()}
        if all(pid in found for pid in pids):
            return [found[pid] for pid in pids]
        assert time.monotonic() < deadline, f"no writer of {set(pids) - found.keys()}"
        time.sleep(0.02)


def _writers() -> list[tuple[int, int]]:
    """Every living writer process, with its parent."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"write_process.py" in (folder / "cmdline").read_bytes():
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                found.append((int(folder.name), parent))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


def slow_steps(seconds: float) -> None:
    """For `go(in_rank=...)`: every step of this rank takes so much longer."""
    from xgen.train.trainer import JobTrainer

    fast = JobTrainer.train_step

    def slow(self: JobTrainer, data: object) -> None:
        time.sleep(seconds)
        fast(self, data)

    JobTrainer.train_step = slow


def spoil_step(step: int, factor: float, times: int = 1) -> None:
    """For `go(in_rank=...)`: loss and gradients of that step of this rank are multiplied, the first `times`."""
    from xgen.train.trainer import JobTrainer

    sound, left = JobTrainer._forward_backward, [times]

    def spoilt(self: JobTrainer, data: Iterator[Any]) -> torch.Tensor:
        loss = sound(self, data)
        if self.step != step or not left[0]:
            return loss
        left[0] -= 1
        for part in self.model_parts:
            for parameter in part.parameters():
                if parameter.grad is not None:
                    parameter.grad *= factor
        return loss * factor

    JobTrainer._forward_backward = spoilt  # type: ignore[method-assign]
