"""The embedded executor: the same batch script, the same signals, no SLURM.

A supervisor (local_supervisor.py) runs each run, in a process of its own; what is here starts it, finds it, and stops
it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from xgen.cluster.slurm import SchedulerError
from xgen.runs import STOP_SIGNALS, RunDir, write_atomic

SUPERVISOR = "xgen.cluster.local_supervisor"  # its module


def start(run: RunDir, scripts: Mapping[int, str], environment: Mapping[str, str], wait: int = 0) -> str:
    """Start the supervisor of a run, detached, with the script of each stage and more in its environment. It begins in
    `wait` seconds. Returns its process id, the job id.

    Raises SchedulerError when the run has one that does not end.
    """
    folder = run.path / "local"
    await_end(lambda: is_alive(run), 10)  # one that has decided is about to end
    if is_alive(run):
        raise SchedulerError(f"{run.name} is still run by process {_pid(run)}; write xgen cancel {run.name}")
    if _pid(run) is not None:
        kill_job(run)  # what outlived a supervisor that was killed
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for stage, script in scripts.items():
        write_atomic(folder / f"script-{stage}.sh", script)
    write_atomic(folder / "host", os.uname().nodename + "\n")
    if wait:
        write_atomic(folder / "begin", f"{wait}\n")
    with (folder / "supervisor.log").open("ab") as log:
        process = start_supervisor(
            run, stdout=log, stderr=log, start_new_session=True, cwd=run.path, env={**os.environ, **environment}
        )
    write_atomic(folder / "pid", f"{process.pid}\n")
    return str(process.pid)


def start_supervisor(run: RunDir, *shard: str, **how: Any) -> subprocess.Popen[bytes]:
    """A supervisor, of the run or of a shard. Stop signals are blocked until its handlers are armed: one that comes
    while it imports is kept, not deadly."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        words = [sys.executable, "-m", SUPERVISOR, str(run.path), *shard]
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, **how)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def is_local(run: RunDir) -> bool:
    """Whether this executor runs it, and not SLURM. Of a run that cannot be read SLURM need not be asked."""
    try:
        return (run.path / "local").is_dir()
    except OSError:
        return True


def other_host(run: RunDir) -> str | None:
    """Name of the machine that the run's supervisor is on, when it is not this one: from here it cannot be seen."""
    try:
        host = (run.path / "local" / "host").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    return host if host != os.uname().nodename else None


def is_alive(run: RunDir) -> bool:
    """Whether the run's supervisor runs on this machine. A process id that was given to another is not it."""
    pid = _pid(run)
    if pid is None or other_host(run) is not None:
        return False
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        # Not by its text: a run has as many paths as there are links to it.
        path = words[words.index(SUPERVISOR.encode()) + 1]
        return Path(os.fsdecode(path)).samefile(run.path)
    except (OSError, ValueError, IndexError):
        return False


def is_held(run: RunDir) -> bool:
    """Whether its supervisor waits for `xgen release`."""
    try:
        return "JobState=PENDING" in (run.path / "local" / "state").read_text(encoding="utf-8")
    except OSError:
        return False


def ask_to_stop(run: RunDir) -> bool:
    """Its tasks are to save and stop, and then it goes on: the stop signal, without the haste of a preemption. False
    where none run."""
    try:
        os.kill(int((run.path / "local" / "srun.pid").read_text()), signal.SIGUSR2)
    except (OSError, ValueError):
        return False
    return True


def send(run: RunDir, number: signal.Signals) -> bool:
    """SIGTERM cancels a run, SIGUSR2 preempts it. False when its supervisor is gone."""
    pid = _pid(run)
    if pid is None or not is_alive(run):
        return False
    os.kill(pid, number)
    return True


def _pid(run: RunDir) -> int | None:
    try:
        return int((run.path / "local" / "pid").read_text())
    except (OSError, ValueError):
        return None


def kill_job(run: RunDir, job_id: str | None = None) -> None:
    """SIGKILL for whatever a job left, or all of the run's: no process outlives its job in SLURM either. Its
    environment tells it by."""

    def left() -> list[int]:
        return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _is_of(p, run, job_id)]

    def kill() -> bool:
        pids = left()
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        return bool(pids)

    await_end(kill, 5)  # again and again: a process may start another while this looks around


def _is_of(process: Path, run: RunDir, job_id: str | None) -> bool:
    try:
        pairs = (pair.partition(b"=") for pair in (process / "environ").read_bytes().split(b"\0"))
        environment = {name: value for name, _, value in pairs}
        if job_id is not None and environment[b"SLURM_JOB_ID"] != job_id.encode():
            return False
        path = Path(os.fsdecode(environment[b"XGEN_RUN_DIR"])).resolve()
        return path.is_relative_to(run.path.resolve())  # a shard's is below
    except (OSError, KeyError):
        return False


def await_end(goes_on: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while goes_on() and time.monotonic() < deadline:
        time.sleep(0.02)
