"""`metrics/steps.jsonl`: one line a step. After a resume steps may repeat, and the last one counts."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

_BLOCK = 4096


@dataclass(frozen=True)
class StepRecord:
    """One finished step, over all ranks."""

    step: int
    loss: float | None  # mean over all tokens; None: not finite
    loss_hex: str  # the same, for comparing runs bit by bit
    grad_norm: float | None  # before clipping; None: not finite
    lr: float
    tokens: int  # since step 0
    seconds: float
    first_sample: int = 0  # number in its stage of its first sample
    data: str = ""  # hex: sum of the digests of the step's samples, modulo 2^64 (xgen.data.proof)
    stage: str = ""
    time: float = 0.0  # seconds since the epoch: the heartbeat of the training
    guard: str = ""  # what the guard did about it, '' for nothing


class StepFile:
    """Appends whole lines or nothing. A full disk costs records, not the training."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o664)
        self._failing = False
        self._cut_torn_line()

    def append(self, record: StepRecord) -> None:
        line = (json.dumps(asdict(record)) + "\n").encode()
        size = os.fstat(self._fd).st_size
        try:
            if os.write(self._fd, line) < len(line):
                os.ftruncate(self._fd, size)
                raise OSError("no room for a whole line")
            self._failing = False
        except OSError as error:
            if not self._failing:
                print(f"{self._path}: cannot record steps, training goes on: {error}", file=sys.stderr, flush=True)
            self._failing = True

    def close(self) -> None:
        os.close(self._fd)

    def _cut_torn_line(self) -> None:
        """What an attempt wrote last when its node died may be a part of a line; readers want whole ones."""
        end = size = os.fstat(self._fd).st_size
        while end > 0:
            block = os.pread(self._fd, min(end, _BLOCK), end - min(end, _BLOCK))
            newline = block.rfind(b"\n")
            if newline >= 0:
                end += newline + 1 - len(block)
                break
            end -= len(block)
        if end < size:
            os.ftruncate(self._fd, end)
