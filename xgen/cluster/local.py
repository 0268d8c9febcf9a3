"""The embedded executor: the same batch script, the same signals, no SLURM.

A supervisor process plays the part of slurmctld for one run. It puts an `srun` and an `scontrol` on PATH that
answer what `host.sh` asks, warns the tasks `lead` before the time limit, and runs the script again when it
requeues itself. `python -m xgen.cluster.local RUN_DIR` is the supervisor.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from xgen.runs import RunDir, write_atomic
from xgen.spec import Job, Profile, load_profile, load_resolved

_SCONTROL = """#!/bin/sh
# What host.sh asks of scontrol, answered by xgen's local executor.
case "$1 $2" in
  "show hostnames") echo localhost ;;
  "show node") echo NodeAddr=127.0.0.1 ;;
  "show job") cat "{folder}/state" ;;
  "requeue Incomplete") grep -q JobState=CANCELLED "{folder}/state" || : >"{folder}/requeue" ;;
  *) echo "scontrol: not known to the local executor: $*" >&2; exit 1 ;;
esac
"""


def start(run: RunDir, script: str) -> str:
    """Start the supervisor of a run, detached. Returns its process id, which is the job id."""
    folder = run.path / "local"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_atomic(folder / "script.sh", script)
    with (folder / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "xgen.cluster.local", str(run.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=run.path,
        )
    write_atomic(folder / "pid", f"{process.pid}\n")
    return str(process.pid)


def is_alive(run: RunDir) -> bool:
    """Whether the run's supervisor runs on this machine. A process id that was given to another is not it."""
    pid = _pid(run)
    if pid is None:
        return False
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"xgen.cluster.local" in words and os.fsencode(run.path) in words


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


class Supervisor:
    """Runs the script until it no longer requeues itself."""

    def __init__(self, run: RunDir, job: Job, profile: Profile) -> None:
        self._run, self._job, self._profile = run, job, profile
        self._folder = run.path / "local"
        self._cancelled = self._preempted = False

    def main(self) -> int:
        signal.signal(signal.SIGTERM, self._on_cancel)
        signal.signal(signal.SIGUSR2, self._on_preempt)
        self._write_shims()
        code, restarts = 0, 0
        while True:
            self._preempted = False
            (self._folder / "requeue").unlink(missing_ok=True)
            code = self._attempt(restarts)
            if self._cancelled or not (self._folder / "requeue").exists():
                return code
            restarts += 1

    def _on_cancel(self, _number: int, _frame: FrameType | None) -> None:
        self._cancelled = True

    def _on_preempt(self, _number: int, _frame: FrameType | None) -> None:
        self._preempted = True

    def _write_shims(self) -> None:
        bin_dir = self._folder / "bin"
        bin_dir.mkdir(exist_ok=True)
        srun = f'#!/bin/sh\nexec {sys.executable} -m xgen.cluster.local_srun "{self._folder}" "$@"\n'
        for name, text in (("scontrol", _SCONTROL.format(folder=self._folder)), ("srun", srun)):
            write_atomic(bin_dir / name, text)
            (bin_dir / name).chmod(0o755)

    def _set_state(self, state: str) -> None:
        preempt_time = "1" if self._preempted else "None"
        write_atomic(self._folder / "state", f"JobId={os.getpid()} JobState={state} PreemptTime={preempt_time}\n")

    def _environment(self, restarts: int) -> dict[str, str]:
        resources = self._job.resources
        environment = {name: os.environ[name] for name in ("HOME", "USER", "LOGNAME", "LANG") if name in os.environ}
        environment |= {
            "PATH": f"{self._folder / 'bin'}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),  # until the script sets the snapshot's
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_RESTART_COUNT": str(restarts),
            "SLURM_NNODES": str(resources.nodes),
            "SLURM_NTASKS": str(resources.world_size),
            "SLURM_CPUS_PER_TASK": str(resources.cpus_per_task),
        }
        return environment

    def _attempt(self, restarts: int) -> int:
        """Run the script once, with the signals that SLURM would send. Returns its exit code."""
        self._set_state("RUNNING")
        (self._folder / "srun.pid").unlink(missing_ok=True)
        script = subprocess.Popen(
            ["bash", str(self._folder / "script.sh")],
            env=self._environment(restarts),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=self._run.path,
        )
        limit = self._job.resources.time
        began = time.monotonic()
        deadline = began + limit
        warned = terminated = False
        while True:
            with suppress(subprocess.TimeoutExpired):
                return script.wait(timeout=0.1)
            now = time.monotonic()
            if self._cancelled and not terminated:
                self._set_state("CANCELLED")
                deadline = now
            elif (self._preempted or now > deadline - self._job.lead) and not warned:
                warned = self._signal_srun(signal.SIGUSR2)
                if self._preempted:
                    self._set_state("RUNNING")
                    deadline = min(deadline, now + max(1, self._grace()))
            if now >= deadline and not terminated:
                terminated = True
                self._signal_srun(signal.SIGTERM)
                script.send_signal(signal.SIGTERM)
            if now >= deadline + self._profile.kill_wait:
                self._signal_srun(signal.SIGKILL)
                script.kill()

    def _grace(self) -> int:
        name = self._job.resources.partition or self._profile.default_partition
        return self._profile.partitions[name].grace

    def _signal_srun(self, number: signal.Signals) -> bool:
        """To the tasks' parent, which passes it on; its death is theirs. False before it runs."""
        try:
            os.kill(int((self._folder / "srun.pid").read_text()), number)
        except (OSError, ValueError):
            return False
        return True


def _main() -> int:
    run = RunDir(Path(sys.argv[1]))
    return Supervisor(run, load_resolved(run.spec_file), load_profile(run.profile_file)).main()


if __name__ == "__main__":
    sys.exit(_main())
