"""SLURM's commands, each with a time-out, and the submitit executor that submits our text."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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


def max_array_size() -> int | None:
    """Shards that a job array may have; None where the scheduler does not say."""
    try:
        found = re.search(r"MaxArraySize\s*=\s*(\d+)", command("scontrol", "show", "config"))
    except SchedulerError:
        return None
    return int(found[1]) if found else None


@dataclass(frozen=True)
class QueueRow:
    """One job as `squeue` sees it, or one shard of a job array: `12_3`, and `12_[4-9]` for those that wait together.
    `start` is SLURM's own text, 'N/A' when it does not know."""

    job_id: str
    name: str
    state: str
    reason: str
    partition: str
    nodes: str
    start: str
    restarts: str


def queue(users: Iterable[int] = ()) -> list[QueueRow]:
    """All jobs of this user in the queue, and of `users` by their numbers, by one call. Raises SchedulerError.

    Where the site hides jobs from others (PrivateData), those of `users` are not among them.
    """
    fields = "JobArrayID:|,Name:|,State:|,Reason:|,Partition:|,NodeList:|,StartTime:|,RestartCnt:|"
    rows = []
    whose = f"--user={','.join(map(str, {os.getuid(), *users}))}"
    for line in command("squeue", whose, "--noheader", "--all", f"--Format={fields}").splitlines():
        parts = line.split("|")
        if len(parts) == 9:
            rows.append(QueueRow(*parts[:8]))
    return rows


def cancel(name: str) -> None:
    """All jobs of this user that have the name. Raises SchedulerError."""
    command("scancel", f"--user={os.getuid()}", f"--name={name}")


def submit_script(script: str, folder: Path, num_tasks: int, environment: Mapping[str, str]) -> Job[Any]:
    """Submit `script` through submitit and return its job; sbatch sees `environment` too. Raises SchedulerError."""
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
        with _in_environment(environment):
            return ScriptExecutor(folder)._submit_command("")
    except (FailedJobError, RuntimeError) as error:
        raise SchedulerError(_first_line(str(error))) from None


@contextmanager
def _in_environment(environment: Mapping[str, str]) -> Iterator[None]:
    """submitit gives sbatch this process's own environment, and a command line is for all to read."""
    os.environ.update(environment)
    try:
        yield
    finally:
        for name in environment:
            del os.environ[name]


def _first_line(text: str) -> str:
    lines = [
        line.removeprefix("sbatch: error: ").removeprefix("sbatch: ") for line in text.splitlines() if line.strip()
    ]
    return lines[-1] if lines else ""
