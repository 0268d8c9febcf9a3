"""What a watchdog costs: `python -m benchmarks.hang [--json] [--runs N]`.

The time of a rank for each sign of progress (CPU time: nothing else of this process runs), and what the process beside
it takes while nothing happens and while steps are done.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common import Figure, Result
from xgen.hang.board import Progress
from xgen.hang.limits import Limits
from xgen.hang.proc import stat
from xgen.hang.start import start_watchdog
from xgen.runs.bond import die_with_parent

_SIGNS, _WATCHED = 200_000, 20.0
_GOALS = {"a step, ns": 1000.0, "a phase and back, ns": 20_000.0, "the watchdog, % of a core": 0.5}


def _per_call_ns(progress: Progress) -> tuple[float, float]:
    began = time.process_time()
    for step in range(_SIGNS):
        progress.step(step)
    steps = time.process_time() - began
    began = time.process_time()
    for _ in range(_SIGNS // 20):
        with progress.during("validation"):
            pass
    return 1e9 * steps / _SIGNS, 20e9 * (time.process_time() - began) / _SIGNS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        run = Path(folder)
        (run / "attempts/0001").mkdir(parents=True)
        limits = Limits({"start": 1800.0, "train": 300.0})
        began = time.process_time()
        progress = start_watchdog(run, 1, "1", 0, 0, 1, limits, 60.0, die_with_parent())
        started = 1e3 * (time.process_time() - began)
        (watchdog,) = map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
        progress.enter("train")
        calls = [_per_call_ns(progress) for _ in range(arguments.runs)]
        before = stat(watchdog)
        until = time.monotonic() + _WATCHED
        while time.monotonic() < until:
            progress.touch()
            time.sleep(0.1)
        after = stat(watchdog)
        assert before
        assert after
        pages = int(Path(f"/proc/{watchdog}/statm").read_text().split()[1])
    figures = {
        "a step, ns": Figure.of([steps for steps, _ in calls], "ns"),
        "a phase and back, ns": Figure.of([phases for _, phases in calls], "ns"),
        "the watchdog, % of a core": Figure.of([100 * (after.cpu - before.cpu) / _WATCHED], "%"),
        "the watchdog, start": Figure.of([before.cpu], "s"),
        "the rank, to start it": Figure.of([started], "ms"),
        "the watchdog, memory": Figure.of([pages * os.sysconf("SC_PAGE_SIZE") / 2**20], "MB"),
    }
    Result("hang", figures, {}, _GOALS).print(arguments.json)


if __name__ == "__main__":
    main()
