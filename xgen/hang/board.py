"""How far a rank is: a few numbers in memory that it shares with its watchdog. A sign of progress is one addition."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

# What a rank is at. Each has a limit of its own for the time between two signs of progress.
PHASES = ("start", "restore", "first_step", "train", "validation", "checkpoint", "generate", "stop", "work", "command")
_COUNT, _PHASE, _STEP, _LOST = range(4)
_SIZE = 4 * 8


class Progress:
    """The rank's end. Without a watchdog nobody reads it; `ends` says whether there is one that may end the rank.
    `stacks` is where the rank's stacks appear when the watchdog asks for them, if there is one."""

    def __init__(self, fd: int | None = None, ends: bool = False, stacks: int | None = None) -> None:
        self._ends, self.stacks = ends, stacks
        memory = mmap.mmap(-1, _SIZE) if fd is None else mmap.mmap(fd, _SIZE)
        self._cells = memoryview(memory).cast("Q")
        self._name = PHASES[self._cells[_PHASE]]

    def touch(self) -> None:
        """Something was done."""
        self._cells[_COUNT] += 1

    def step(self, step: int) -> None:
        """A step is done, and the next begins."""
        cells = self._cells
        cells[_STEP] = step
        cells[_COUNT] += 1

    def enter(self, phase: str) -> None:
        """Something else begins, which has another limit."""
        self._name, self._cells[_PHASE] = phase, PHASES.index(phase)
        self._cells[_COUNT] += 1

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """`phase`, and then again what was before."""
        before = self._name
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def lost(self, seconds: float) -> None:
        """This rank has waited for another one in vain, and knows it before any limit: all write down where they stand,
        and this one does not come back. Where nobody is there to do it, it does, after so many seconds."""
        if self._ends:
            self._cells[_LOST] = 1
            time.sleep(seconds)


class Seen(NamedTuple):
    """What the board says at a moment."""

    signs: int  # of progress, so far
    phase: str
    step: int
    lost: bool


class Board:
    """The watchdog's end."""

    def __init__(self, fd: int) -> None:
        self._cells = memoryview(mmap.mmap(fd, _SIZE, prot=mmap.PROT_READ)).cast("Q")

    def read(self) -> Seen:
        cells = self._cells
        return Seen(cells[_COUNT], PHASES[cells[_PHASE]], cells[_STEP], bool(cells[_LOST]))


def make_memory() -> int:
    """Descriptor of memory for a board, which children may inherit."""
    fd = os.memfd_create("xgen-progress")
    os.truncate(fd, _SIZE)
    return fd
