"""What submitting a sweep costs: `python -m benchmarks.sweep [--json] [--rounds N] [--points N] [--cluster FILE]`.

Each round is one `xgen submit` of a sweep of so many trainings, from the command to its end, and its CPU time; the run
is cancelled right after. Needs the cluster of the profile (default: slurm/dev/up) and the tiny store (make setup).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import ROOT, Figure, Result
from xgen.cluster import slurm
from xgen.spec import dump, load_profile

GOAL = 3.0  # seconds for 200 points
_END = 120.0  # seconds


def measure(cluster: Path, num_rounds: int, num_points: int) -> Result:
    """Raises RuntimeError with what the command said."""
    walls, cpus = [], []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        profile = Path(folder) / "cluster.yaml"
        profile.write_text(dump(load_profile(cluster).model_copy(update={"run_root": f"{folder}/runs"})))
        for _ in range(num_rounds):
            wall, cpu, run = _submit(profile, num_points)
            walls.append(wall)
            cpus.append(cpu)
            _xgen("cancel", run, "--cluster", str(profile))
            _await_end(run)
    name = f"xgen submit, {num_points} points"
    figures = {name: Figure.of(walls), f"{name}, CPU": Figure.of(cpus)}
    return Result("sweep", figures, {}, {name: GOAL} if num_points == 200 else {})


def _submit(profile: Path, num_points: int) -> tuple[float, float, str]:
    """Seconds, seconds of CPU with all that it starts, and the run."""
    before, began = os.times(), time.perf_counter()
    settings = ("--set", f"points.random={num_points}", "--set", "stop=null")
    said = _xgen("submit", "jobs/tiny/sweep.yaml", "--cluster", str(profile), *settings, "--json")
    wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu, str(json.loads(said)["run"])


def _await_end(run: str) -> None:
    """Of the points that had started: they write into the folder."""
    deadline = time.monotonic() + _END
    while time.monotonic() < deadline and any(row.name == run for row in slurm.queue()):
        time.sleep(0.5)


def _xgen(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "xgen.cli.main", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--cluster", type=Path, default=ROOT / "slurm/clusters/dev.yaml")
    options = parser.parse_args(arguments)
    try:
        result = measure(options.cluster, options.rounds, options.points)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    result.print(options.json)
    return 0 if all(result.met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
