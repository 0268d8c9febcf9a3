"""What SLURM itself takes to run a job again: nothing of ours is in these."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from benchmarks.alarms.watch import wait_for
from tests.cluster.conftest import sbatch

_REQUEUED = """#!/bin/bash
date +%s.%N >>{log}
[ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ] || scontrol requeue Incomplete $SLURM_JOB_ID
"""
_SUCCEEDED = """#!/bin/bash
date +%s.%N >>{log}
[ "$(wc -l <{log})" -gt 1 ] || sbatch --partition=preempt --mem=100M --output=/dev/null \
  --dependency=afterany:$SLURM_JOB_ID {script}
"""


def floors(folder: Path, tries: int = 3) -> dict[str, list[float]]:
    """Seconds from one start of a bash job that takes no time to its next, on an idle cluster: requeued, and as a new
    job that waits for the old one. Raises LabError."""
    return {
        name: [_start_again(folder / f"{name}-{number}", text) for number in range(tries)]
        for name, text in (("requeue", _REQUEUED), ("successor", _SUCCEEDED))
    }


def _start_again(place: Path, text: str) -> float:
    place.mkdir(parents=True)
    log, script = place / "starts", place / "job.sh"
    script.write_text(text.format(log=log, script=script))
    sbatch("--partition=preempt", "--requeue", str(script))
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) == 2, 180, f"second start of {script}")
    first, second = map(float, log.read_text().split())
    _await_idle()
    return second - first


def _await_idle() -> None:
    until = time.monotonic() + 30
    while subprocess.run(["squeue", "-h"], capture_output=True, timeout=60, check=True).stdout:
        if time.monotonic() > until:
            return
        time.sleep(0.2)
