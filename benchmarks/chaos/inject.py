"""The faults themselves, done to processes, jobs and daemons of the laboratory."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from benchmarks.alarms.lab import STATE, Bench, batch_scripts, steps_of
from benchmarks.chaos.plan import ClusterFault, RunFault
from tests.cluster.conftest import sbatch, scontrol, task_pids
from xgen.runs import RunDir

_DOWN = 4.0  # seconds that a daemon, a node or room on the disk is missing


def on_run(fault: RunFault, lab: Bench, run: RunDir, job: str) -> bool:
    """Whether there was somebody to do it to. What the job does to itself (NaN, crash, its time limit) is not ours."""
    match fault:
        case "signal":
            try:
                return subprocess.run(["scancel", "--signal=USR2", job], timeout=60, check=False).returncode == 0
            except subprocess.TimeoutExpired:  # its controller is being killed, too
                return False
        case "kill rank":
            return _kill(list(task_pids(run).values())[-1:], signal.SIGKILL)
        case "hang":
            return _kill([pid for task in list(task_pids(run).values())[-1:] for pid in _work(task)], signal.SIGSTOP)
        case "kill batch":
            return _kill([*batch_scripts(run), *steps_of(job), *task_pids(run).values()], signal.SIGKILL)
        case "NaN":
            lab.plant(run, nan=1e9)
            return True
        case _:
            return True


def _work(task: int) -> list[int]:
    """What computes: of a command its own process, of a training the task."""
    with suppress(OSError):
        children = map(int, Path(f"/proc/{task}/task/{task}/children").read_text().split())
        return [pid for pid in children if b"chain.py" in Path(f"/proc/{pid}/cmdline").read_bytes()] or [task]
    return []


def _kill(pids: list[int], number: signal.Signals) -> bool:
    hit = False
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            hit = True
    return hit


def on_cluster(
    fault: ClusterFault, lab: Bench, node: str, submit: Callable[[], list[str]], stop_one: Callable[[], list[str]]
) -> list[str]:
    """Done, and undone. `submit` submits the next run, `stop_one` has a run save and be requeued: what the controller
    is killed under. Returns the names of the jobs that were hit."""
    hit = _running() if fault == "disk full" else _running(f"--nodelist={node}")
    match fault:
        case "preempt":
            sbatch("--partition=gpu", f"--nodelist={node}", "--gpus-per-node=8", "--wrap", "sleep 1")
        case "kill slurmd":
            _kill([_pid(f"slurmd-{node}")], signal.SIGKILL)
            time.sleep(_DOWN)
            lab.mend()
        case "node down":
            scontrol("update", f"nodename={node}", "state=down", "reason=chaos")
            time.sleep(_DOWN)
            lab.mend()  # where it has not come back by itself
        case "node lost":
            _lose(node)
            time.sleep(_DOWN)
            lab.mend()
        case "disk full":
            _fill(lab.cluster.run_root.parent)
        case "slurmctld at submit" | "slurmctld at requeue":
            with ThreadPoolExecutor(1) as thread:
                acting = thread.submit(submit if fault == "slurmctld at submit" else stop_one)
                time.sleep(0.05)
                lab.kill_controller()
                time.sleep(_DOWN)
                lab.mend()
                hit = acting.result(timeout=300)
    return hit


def _running(*options: str) -> list[str]:
    asked = ["squeue", "--noheader", "--states=running", "--format=%j", *options]
    return subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout.split()


def _pid(daemon: str) -> int:
    return int((STATE / f"run/{daemon}.pid").read_text())


def _lose(node: str) -> None:
    """As when it loses its power: its daemon and all that it started are gone at once."""
    daemon = _pid(f"slurmd-{node}")
    _kill([daemon, *_processes_of(node)], signal.SIGKILL)


def _processes_of(node: str) -> list[int]:
    """All that believes to be on this node, by the hostname of its namespace: its daemon's."""
    here = Path("/proc")
    with suppress(OSError):
        name = (here / str(_pid(f"slurmd-{node}")) / "ns/uts").readlink()
        found = []
        for folder in here.glob("[0-9]*"):
            with suppress(OSError):
                if (folder / "ns/uts").readlink() == name:
                    found.append(int(folder.name))
        return found
    return []


def _fill(disk: Path) -> None:
    """Nobody has room for a while."""
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(1 << 24))
            file.flush()
    time.sleep(_DOWN)
    ballast.unlink()


def mend_all(lab: Bench) -> None:
    """What an interrupted fault may have left."""
    (lab.cluster.run_root.parent / "ballast").unlink(missing_ok=True)
    lab.mend()
