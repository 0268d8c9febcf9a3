"""SLURM's commands, each with a time-out, and the submitit executor that submits our text."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from submitit import Job

_TIMEOUT = 60  # seconds; SLURM's own MessageTimeout is 10 to 100 on real clusters


class SchedulerError(Exception):
    """The scheduler refused, or did not answer. The text is its own, or says how long we waited."""


def command(*arguments: str) -> str:
    """Run one of SLURM's commands and return what it prints. Raises SchedulerError."""
    return _run(*arguments).stdout


def _run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    if shutil.which(arguments[0]) is None:
        raise SchedulerError(f"{arguments[0]} is not on PATH: there is no SLURM client on this machine")
    try:
        done = subprocess.run(arguments, input=stdin, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"{arguments[0]} did not answer within {_TIMEOUT} s") from None
    if done.returncode:
        raise SchedulerError(_first_line(done.stderr) or f"{arguments[0]} exited with {done.returncode}")
    return done


def test_only(script: str) -> str:
    """`sbatch --test-only`: the scheduler's own check of the script. Returns its estimate, one line.

    Raises SchedulerError with the scheduler's reason.
    """
    return _first_line(_run("sbatch", "--test-only", stdin=script).stderr)


@dataclass(frozen=True)
class QueueRow:
    """One job as `squeue` sees it. `start` is SLURM's own text, 'N/A' when it does not know."""

    job_id: str
    name: str
    state: str
    reason: str
    partition: str
    nodes: str
    start: str
    restarts: str


def queue() -> list[QueueRow]:
    """All jobs of this user in the queue, by one call whatever their number. Raises SchedulerError."""
    fields = "JobID:|,Name:|,State:|,Reason:|,Partition:|,NodeList:|,StartTime:|,RestartCnt:|"
    rows = []
    for line in command("squeue", "--me", "--noheader", "--all", f"--Format={fields}").splitlines():
        parts = line.split("|")
        if len(parts) == 9:
            rows.append(QueueRow(*parts[:8]))
    return rows


def cancel(job_id: str) -> None:
    command("scancel", job_id)


def submit_script(script: str, folder: Path, num_tasks: int) -> Job[Any]:
    """Submit `script` through submitit and return its job. Raises SchedulerError."""
    # Imported here: submitit takes 120 ms, and a dry run works where no SLURM is installed.
    from submitit.core.utils import FailedJobError
    from submitit.slurm.slurm import SlurmExecutor

    class ScriptExecutor(SlurmExecutor):
        """submitit with its plug-in points overridden: the text is ours, nothing is pickled."""

        def _make_submission_file_text(self, command: str, uid: str) -> str:
            del command, uid
            return script

        def _num_tasks(self) -> int:
            return num_tasks

    try:
        return ScriptExecutor(folder)._submit_command("")
    except (FailedJobError, RuntimeError) as error:
        raise SchedulerError(_first_line(str(error))) from None


def _first_line(text: str) -> str:
    lines = [
        line.removeprefix("sbatch: error: ").removeprefix("sbatch: ") for line in text.splitlines() if line.strip()
    ]
    return lines[-1] if lines else ""
