"""What tests do to writer processes and to the pace of the training."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


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
    from xgen.train.trainer import PretrainTrainer

    fast = PretrainTrainer.train_step

    def slow(self: PretrainTrainer, data: object) -> None:
        time.sleep(seconds)
        fast(self, data)

    PretrainTrainer.train_step = slow
