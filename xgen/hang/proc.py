"""What the kernel tells of processes: who descends from whom, what they have used, and what their threads wait for."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_TICK = os.sysconf("SC_CLK_TCK")
_MOST_THREADS = 256


class Used(NamedTuple):
    """By a process and what descends from it."""

    cpu: float = 0.0  # seconds
    moved: int = 0  # bytes read and written


class Stat(NamedTuple):
    pid: int
    name: str
    state: str  # R, S, D (uninterruptible), T (stopped), Z, …
    parent: int
    cpu: float


def stat(pid: int) -> Stat | None:
    """None for a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    before, _, after = text.rpartition(")")
    words = after.split()
    return Stat(pid, before.partition("(")[2], words[0], int(words[1]), (int(words[11]) + int(words[12])) / _TICK)


def descendants(pid: int, but: int = 0) -> list[Stat]:
    """Of a process, nearest first, without `but` and what descends from that."""
    children: dict[int, list[Stat]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and (one := stat(int(folder.name))):
            children.setdefault(one.parent, []).append(one)
    found: list[Stat] = []
    look = [pid]
    while look:
        for child in children.get(look.pop(0), ()):
            if child.pid != but:
                found.append(child)
                look.append(child.pid)
    return found


def used(pid: int, but: int = 0) -> Used:
    """By a process and its descendants so far; what has ended is not in it."""
    own = stat(pid)
    every = [*([own] if own else []), *descendants(pid, but)]
    return Used(sum(one.cpu for one in every), sum(_moved(one.pid) for one in every))


def _moved(pid: int) -> int:
    with suppress(OSError, ValueError):
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        values = dict(line.split(": ") for line in lines)
        return int(values["rchar"]) + int(values["wchar"])
    return 0


def command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def threads(pid: int) -> list[str]:
    """A line for each thread of a process: its state, what it waits for, and where in the kernel, as far as one may
    read it."""
    lines = []
    try:
        tasks = sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda folder: int(folder.name))
    except OSError:
        return ["the process is gone"]
    for folder in tasks[:_MOST_THREADS]:
        one = _thread(folder)
        lines.append(f"{folder.name} {one}  wchan {_read(folder / 'wchan')}  syscall {_read(folder / 'syscall')}")
        kernel = _read(folder / "stack")
        lines += [f"    {line}" for line in kernel.splitlines()]
    return lines


def _thread(folder: Path) -> str:
    text = _read(folder / "stat")
    before, _, after = text.rpartition(")")
    return f"{before.partition('(')[2]}  {after.split()[0]}" if after else text


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip() or "-"
    except OSError as error:
        return f"({error.strerror})"
