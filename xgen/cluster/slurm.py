"""SLURM's commands, each with a time-out, and the submitit executor that submits our text."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from submitit import Job

# Seconds for one command; SLURM's own MessageTimeout is 10 to 100 on real clusters.
_TIMEOUT = float(os.environ.get("XGEN_SCHEDULER_TIMEOUT") or 60)
# What SLURM's commands say when they do not know whether the controller has heard them (slurm_errno.c of 22.05 to
# 25.05); a connection that was refused is among it: a backup may have taken over in between.
_NO_ANSWER = re.compile(
    r"timed out|contact slurm controller|Zero Bytes were transmitted|Connection refused|Transport endpoint|"
    r"ommunication|Broken pipe|Socket|Unexpected message|in standby|Insane message length|Incompatible versions",
    re.IGNORECASE,
)

WHO = ("HOME", "USER", "LOGNAME", "LANG", "PATH")
# Of a client's environment a job has these. sbatch is run with nothing else, and told to export all of it: where it is
# given names to export, SLURM makes a login, `su - USER`, for each start of a job, which costs seconds, counts as the
# job's time, and holds the job for ever where it fails (seen in 22.05). What a spec says, no SBATCH_… says otherwise.
FROM_CLIENT = (
    *WHO, "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_SACK_SOCKET", "SLURM_JWT",
    "SBATCH_ACCOUNT", "SBATCH_CLUSTERS", "SBATCH_CONSTRAINT", "SBATCH_NO_REQUEUE", "SBATCH_QOS", "SBATCH_RESERVATION",
    "SBATCH_WCKEY",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "KRB5CCNAME",  # SLURM from a module, and its plugins
)  # fmt: skip

_KILLED = (124, 137, -9, -15)  # exit codes of a command that its time limit has ended

WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")  # states of a job in the queue that is to start
_ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
}  # fmt: skip


class SchedulerError(Exception):
    """The scheduler refused, or did not answer. The text is its own, or says how long we waited."""


class UnansweredError(SchedulerError):
    """It did not answer: whether it has heard what it was told is not known."""


def command(*arguments: str) -> str:
    """Run one of SLURM's commands and return what it prints. Raises SchedulerError."""
    return _run(*arguments).stdout


def _run(
    *arguments: str, stdin: str | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    if shutil.which(arguments[0]) is None:
        raise SchedulerError(f"{arguments[0]} is not on PATH: there is no SLURM client on this machine")
    try:
        done = subprocess.run(
            arguments, input=stdin, env=environment, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise UnansweredError(f"{arguments[0]} did not answer within {_TIMEOUT:g} s") from None
    if done.returncode:
        raise _error(_first_line(done.stderr) or f"{arguments[0]} exited with {done.returncode}")
    return done


def _error(said: str) -> SchedulerError:
    return UnansweredError(said) if _NO_ANSWER.search(said) else SchedulerError(said)


def test_only(script: str) -> str:
    """`sbatch --test-only`: the scheduler's own check of the script. Returns its estimate, one line.

    Raises SchedulerError with the scheduler's reason.
    """
    environment = {name: os.environ[name] for name in FROM_CLIENT if name in os.environ}
    return _first_line(_run("sbatch", "--test-only", stdin=script, environment=environment).stderr)


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


def find_commented(name: str, word: str) -> list[str]:
    """Numbers of the jobs of this user of that name whose comment has the word, ascending; those that ended within
    SLURM's MinJobAge too. Raises SchedulerError."""
    jobs = command(
        "squeue", f"--user={os.getuid()}", f"--name={name}", "--states=all", "--noheader", "--all", "--format=%F|%k"
    )  # fmt: skip
    found = (line.split("|", 1) for line in jobs.splitlines() if "|" in line)
    return sorted({job_id for job_id, comment in found if word in comment.split()}, key=int)


def is_alive(name: str, jobs: str) -> bool:
    """Whether SLURM has one of these jobs of that name, `12` or `12:15`, or a shard of them, that has not ended: what
    scontrol says, by another way than squeue's. A controller that lost its memory gives numbers a second time. Raises
    SchedulerError."""
    for job_id in filter(None, jobs.split(":")):
        try:
            record = command("scontrol", "show", "job", "-o", job_id)
        except SchedulerError as error:
            if "nvalid job id" not in str(error):
                raise
            continue
        if f" JobName={name} " in record and set(re.findall(r"JobState=(\w+)", record)) - _ENDED:
            return True
    return False


def cancelled_by(name: str, job_id: str) -> int | None:
    """The number of the user who cancelled a job of that name, by the accounting; None where it does not say. Raises
    SchedulerError."""
    said = command(
        "sacct", "--allocations", "--noheader", "--parsable2", "--format=State", f"--name={name}", f"--jobs={job_id}"
    )
    found = re.search(r"CANCELLED by (\d+)", said)
    return int(found[1]) if found else None


def cancel(name: str, user: int | None = None) -> None:
    """All jobs of a user, by default of this one, that have the name. Raises SchedulerError, in SLURM's words where it
    does not let this person."""
    command("scancel", f"--user={os.getuid() if user is None else user}", f"--name={name}")


def accounts_of(name: str, user: int) -> list[str]:
    """That the jobs of a user that have the name are charged to. Raises SchedulerError."""
    asked = ("--noheader", "--all", "--format=%a")
    return sorted(set(command("squeue", f"--user={user}", f"--name={name}", *asked).split()))


def coordinators(account: str) -> list[str]:
    """Users who may cancel every job of an account, as SLURM's accounting says. Raises SchedulerError."""
    said = command("sacctmgr", "--noheader", "--parsable2", "show", "account", account, "withcoord", "format=coord")
    return sorted(filter(None, said.strip().split(",")))


def submit_script(script: str, folder: Path, num_tasks: int, environment: Mapping[str, str], comment: str) -> Job[Any]:
    """Submit `script` through submitit and return its job, which has the comment and the variables of FROM_CLIENT and
    `environment`. Raises SchedulerError, UnansweredError where the job may be there all the same."""
    # Imported here: submitit takes 120 ms, and a dry run works where no SLURM is installed.
    from submitit.core.utils import FailedJobError, FailedSubmissionError
    from submitit.slurm.slurm import SlurmExecutor

    class ScriptExecutor(SlurmExecutor):
        """submitit with its plug-in points overridden: the text is ours, nothing is pickled."""

        def _make_submission_file_text(self, command: str, uid: str) -> str:
            del command, uid
            return script

        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            seconds = f"{_TIMEOUT:g}"
            sbatch = ["sbatch", f"--comment={comment}", str(submission_file_path)]
            return ["timeout", "--kill-after=5", seconds, "env", *_without(environment), *sbatch]

        def _num_tasks(self) -> int:
            return num_tasks

    try:
        with _in_environment(environment):
            return ScriptExecutor(folder)._submit_command("")
    except FailedSubmissionError:  # it went well, and no number was said
        raise UnansweredError("sbatch did not say the number of the job") from None
    except FailedJobError as error:
        cause = error.__cause__
        if isinstance(cause, subprocess.CalledProcessError) and cause.returncode in _KILLED:
            raise UnansweredError(f"sbatch did not answer within {_TIMEOUT:g} s") from None
        raise _error(_first_line(str(error)) or "sbatch failed") from None
    except RuntimeError as error:
        raise SchedulerError(_first_line(str(error))) from None


def _without(names: Collection[str]) -> list[str]:
    """Options of `env` that take away what is none of the job's."""
    return [f"--unset={name}" for name in os.environ if name not in {*FROM_CLIENT, *names}]


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
