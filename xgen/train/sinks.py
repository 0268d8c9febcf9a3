"""Where metrics go besides the run directory and Prometheus: TensorBoard and Weights & Biases, both off by default.

Each has a process that reads the run directory (`tracking.py`). The training starts it and, in the end, gives it some
seconds for the rest: it never waits for it in between, whatever becomes of it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys

from xgen.runs import Refused, RunDir
from xgen.spec import Trained
from xgen.train.tracking import TITLES


class Sinks:
    """All that the spec asks for; on rank 0 only."""

    def __init__(self, job: Trained, run: RunDir) -> None:
        """Raises Refused for a sink whose package is missing."""
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in job.sinks.packages:
            if importlib.util.find_spec(name) is None:
                said = f"the package {name} is not in the image; install it there, or leave the sink out"
                raise Refused(f"sinks.{name}: {said}")
        for name in job.sinks.packages:
            command = [sys.executable, "-m", "xgen.train.tracking", str(run.path), name]
            try:
                self._processes[name] = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
            except OSError as error:
                print(f"{TITLES[name]} is given up, the training goes on: {error}", file=sys.stderr, flush=True)

    def close(self, seconds: float) -> None:
        """Let them tell the rest, for so long at most; what is left then, the next attempt's have to tell."""
        for process in self._processes.values():
            assert process.stdin
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"\n")  # a fork may hold the pipe open
                process.stdin.close()
        for name, process in self._processes.items():
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                print(f"{TITLES[name]} is not done after {seconds:g} s and is ended", file=sys.stderr, flush=True)
                os.killpg(process.pid, signal.SIGKILL)  # with what it has started
                with contextlib.suppress(subprocess.TimeoutExpired):  # what hangs in the kernel dies when it can
                    process.wait(1)
