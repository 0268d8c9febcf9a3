"""What the benchmarks share: timing a command, and saying the result the same way everywhere."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Figure:
    """Repeated runs of one thing: seconds, or what `unit` says."""

    median: float
    fastest: float  # the smallest
    slowest: float  # the largest
    num_runs: int
    unit: str = "s"

    @classmethod
    def of(cls, values: Sequence[float], unit: str = "s") -> Figure:
        return cls(statistics.median(values), min(values), max(values), len(values), unit)

    def __str__(self) -> str:
        digits = {"s": 3, "x": 3, "ms": 2}.get(self.unit, 1)
        numbers = (f"{value:.{digits}f}" for value in (self.median, self.fastest, self.slowest))
        return "{} {unit} ({} to {}, {} runs)".format(*numbers, self.num_runs, unit=self.unit)


@dataclass(frozen=True)
class Result:
    """Figures with their goals by figure, beside peers that ran in between them.

    A goal is what the median has to stay below; for a rate (a unit that ends in "/s"), what it has to reach.
    """

    name: str
    figures: Mapping[str, Figure]
    peers: Mapping[str, Figure]
    goals: Mapping[str, float]

    @property
    def met(self) -> dict[str, bool]:
        return {
            name: self.figures[name].median >= goal if self._is_rate(name) else self.figures[name].median < goal
            for name, goal in self.goals.items()
        }

    def _is_rate(self, name: str) -> bool:
        return self.figures[name].unit.endswith("/s")

    def print(self, as_json: bool) -> None:
        """One JSON object, or a line for each figure."""
        if as_json:
            print(json.dumps({**asdict(self), "met": self.met, "machine": machine()}, indent=2))
            return
        width = max(map(len, (*self.figures, *self.peers)))
        for name, figure in self.figures.items():
            goal = ""
            if name in self.goals:
                bound = "at least" if self._is_rate(name) else "below"
                goal = f"  goal {bound} {self.goals[name]:.4g} {figure.unit}: {'met' if self.met[name] else 'MISSED'}"
            print(f"{name:<{width}}  {figure}{goal}")
        for name, figure in self.peers.items():
            print(f"{name:<{width}}  {figure}  peer")


def machine() -> dict[str, object]:
    """What a figure depends on and a reader cannot see."""
    load = os.getloadavg()[0]
    return {"python": platform.python_version(), "num_cpus": os.cpu_count(), "load": round(load, 2)}


def peak_memory(process: int | str = "self") -> float:
    """MB that a process has held at most. Not of `getrusage`, which counts the process that started it."""
    high = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    assert high is not None
    return int(high[1]) / 1024


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def time_commands(
    commands: Mapping[str, Sequence[str]], num_runs: int, cwd: Path, env: Mapping[str, str] | None = None
) -> dict[str, Figure]:
    """Time each command `num_runs` times, in turn, so that a busy moment hits all of them alike.

    One run of each before that warms the file cache and is not counted. Raises CalledProcessError.
    """
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(num_runs + 1):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, cwd=cwd, env=env, check=True, capture_output=True, stdin=subprocess.DEVNULL)
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: Figure.of(taken) for name, taken in seconds.items()}


def peer_python(name: str, packages: Sequence[str], cost: str, shared: bool = False) -> Path:
    """Python of the peers' own environment, made on first use; `shared`: it sees our packages, and has what differs.

    `cost` says what making it takes.
    """
    folder = ROOT / ".cache/bench" / name
    python, ready = folder / "bin/python", folder / "ready"
    if ready.exists() and ready.read_text().split() == list(packages):
        return python
    print(f"making the peers' environment, once: {cost}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    if shared:
        site = folder / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [str(python), "-m", "pip", "install", "--quiet", *packages]
    subprocess.run(install, check=True, timeout=1800, stdout=subprocess.DEVNULL)
    ready.write_text("\n".join(packages))
    return python
