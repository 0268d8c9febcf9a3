"""The embedded executor: the same batch script, the same signals, no SLURM.

A supervisor process plays the part of slurmctld for one run. It puts an `srun` and an `scontrol` on PATH that
answer what `host.sh` asks, warns the tasks `lead` before the time limit, and runs the script again when it
requeues itself. `python -m xgen.cluster.local RUN_DIR` is the supervisor; of a shard that serves the run there is one
more beside it, `python -m xgen.cluster.local RUN_DIR STAGE SHARD`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from xgen.cluster.secrets import KEY_VARIABLE
from xgen.cluster.slurm import SchedulerError
from xgen.runs import EXIT_STOPPED, STOP_SIGNALS, RunDir, write_atomic
from xgen.runs.bond import die_with_parent
from xgen.spec import Array, Job, Profile, load_profile, load_resolved

_LAST_WORD = 60.0  # seconds for what serves a run, once that has ended

_SCONTROL = """#!/bin/sh
# What host.sh asks of scontrol, answered by xgen's local executor.
case "$1 $2" in
  "show hostnames") echo localhost ;;
  "show node") echo NodeAddr=127.0.0.1 ;;
  "show job") cat {state} ;;
  "requeue Incomplete") grep -q JobState=CANCELLED {state} || : >{requeue} ;;
  *) echo "scontrol: not known to the local executor: $*" >&2; exit 1 ;;
esac
"""


def start(run: RunDir, scripts: Mapping[int, str], environment: Mapping[str, str]) -> str:
    """Start the supervisor of a run, detached, with the script of each stage and more in its environment. Returns its
    process id, the job id.

    Raises SchedulerError when the run has one that does not end.
    """
    folder = run.path / "local"
    _await_end(lambda: is_alive(run), 10)  # one that has decided is about to end
    if is_alive(run):
        raise SchedulerError(f"{run.name} is still run by process {_pid(run)}; write xgen cancel {run.name}")
    if _pid(run) is not None:
        _kill_job(run)  # what outlived a supervisor that was killed
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for stage, script in scripts.items():
        write_atomic(folder / f"script-{stage}.sh", script)
    write_atomic(folder / "host", os.uname().nodename + "\n")
    with (folder / "supervisor.log").open("ab") as log:
        process = _supervise(
            run, stdout=log, stderr=log, start_new_session=True, cwd=run.path, env={**os.environ, **environment}
        )
    write_atomic(folder / "pid", f"{process.pid}\n")
    return str(process.pid)


def _supervise(run: RunDir, *shard: str, **how: Any) -> subprocess.Popen[bytes]:
    """A supervisor, of the run or of a shard. Stop signals are blocked until its handlers are armed: one that comes
    while it imports is kept, not deadly."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        words = [sys.executable, "-m", "xgen.cluster.local", str(run.path), *shard]
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
        path = words[words.index(b"xgen.cluster.local") + 1]
        return Path(os.fsdecode(path)).samefile(run.path)
    except (OSError, ValueError, IndexError):
        return False


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


def _kill_job(run: RunDir, job_id: str | None = None) -> None:
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

    _await_end(kill, 5)  # again and again: a process may start another while this looks around


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


def _await_end(goes_on: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while goes_on() and time.monotonic() < deadline:
        time.sleep(0.02)


class Supervisor:
    """Runs the script of each stage until it no longer requeues itself, and then that of the next; what serves the run
    has supervisors of its own beside it."""

    def __init__(self, run: RunDir, job: Job, profile: Profile, folder: Path) -> None:
        self._run, self._job, self._profile = run, job, profile
        self._resources = job.resources  # of the stage that runs
        self._folder = folder  # of what it writes
        self._cancelled = self._preempted = False
        self._shard: dict[str, str] = {}  # what SLURM says to a job of an array
        self._servers: list[subprocess.Popen[bytes]] = []

    def main(self) -> int:
        self._arm()
        code = EXIT_STOPPED
        for stage, (_, resources) in enumerate(self._job.jobs):
            script = self._script(stage)
            if not script.exists():
                continue
            if self._job.serves(stage):
                self._start_servers(stage)
                continue
            self._resources = resources
            if code := self._array(script, self._job.array_of(stage)):
                break
        self._end_servers()
        if self._cancelled:  # maybe where no script was there to settle it
            self._run.cancelled_file.touch()
            (self._run.path / ".secrets").unlink(missing_ok=True)
        return code

    def serve(self, stage: int, shard: int) -> int:
        """One shard of a stage that serves the run."""
        self._arm()
        self._resources = self._job.jobs[stage][1]
        self._set_shard(shard)
        return self._stage(self._script(stage))

    def _arm(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._write_shims()
        signal.signal(signal.SIGTERM, self._on_cancel)
        signal.signal(signal.SIGUSR2, self._on_preempt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _script(self, stage: int) -> Path:
        return self._run.path / "local" / f"script-{stage}.sh"

    def _set_shard(self, shard: int) -> None:
        self._shard = {"SLURM_ARRAY_JOB_ID": str(os.getpid()), "SLURM_ARRAY_TASK_ID": str(shard)}

    def _start_servers(self, stage: int) -> None:
        array = self._job.array_of(stage)
        assert array
        self._servers += [
            _supervise(self._run, str(stage), str(shard), preexec_fn=die_with_parent()) for shard in range(array.shards)
        ]

    def _end_servers(self) -> None:
        """They end by themselves once they see that the run has; what then is left has not seen it."""
        if self._run.ended_file.exists():
            _await_end(lambda: any(server.poll() is None for server in self._servers), _LAST_WORD)
        self._tell_servers(signal.SIGTERM)
        _await_end(lambda: any(server.poll() is None for server in self._servers), self._profile.kill_wait + 10)
        self._tell_servers(signal.SIGKILL)
        for server in self._servers:
            server.wait()

    def _tell_servers(self, number: int) -> None:
        for server in self._servers:
            if server.poll() is None:
                server.send_signal(number)

    def _array(self, script: Path, array: Array | None) -> int:
        """The shards of a stage, one after the other; returns the exit code of the first that does not end well, once
        all have been tried, as in SLURM."""
        if array is None:
            return self._stage(script)
        codes = []
        for shard in range(array.shards):
            self._set_shard(shard)
            codes.append(self._stage(script))
        self._shard = {}
        return next((code for code in codes if code), 0)

    def _stage(self, script: Path) -> int:
        """Attempts on one stage, or shard; returns the exit code of the last."""
        code, restarts = EXIT_STOPPED, 0
        while not self._cancelled:
            self._preempted = False
            (self._folder / "requeue").unlink(missing_ok=True)
            code = self._attempt(script, restarts)
            _kill_job(self._run, str(os.getpid()))
            if not (self._folder / "requeue").exists():
                break
            restarts += 1
        return code

    def _on_cancel(self, _number: int, _frame: FrameType | None) -> None:
        self._cancelled = True
        self._tell_servers(signal.SIGTERM)

    def _on_preempt(self, _number: int, _frame: FrameType | None) -> None:
        self._preempted = True
        self._tell_servers(signal.SIGUSR2)

    def _write_shims(self) -> None:
        bin_dir = self._folder / "bin"
        bin_dir.mkdir(exist_ok=True)
        words = (sys.executable, "-m", "xgen.cluster.local_srun", str(self._folder))
        srun = f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n'
        places = {name: shlex.quote(str(self._folder / name)) for name in ("state", "requeue")}
        for name, text in (("scontrol", _SCONTROL.format(**places)), ("srun", srun)):
            write_atomic(bin_dir / name, text)
            (bin_dir / name).chmod(0o755)

    def _set_state(self, state: str) -> None:
        preempt_time = "1" if self._preempted else "None"
        record = f"JobId={os.getpid()} JobState={state} PreemptTime={preempt_time}\n"
        with suppress(OSError):  # a full disk: the script then knows less, but it decides
            write_atomic(self._folder / "state", record)

    def _environment(self, restarts: int) -> dict[str, str]:
        resources = self._resources
        kept = ("HOME", "USER", "LOGNAME", "LANG", KEY_VARIABLE)
        environment = {name: os.environ[name] for name in kept if name in os.environ}
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
        return environment | self._shard

    def _attempt(self, path: Path, restarts: int) -> int:
        """Run a script once, with the signals that SLURM would send. Returns its exit code."""
        self._set_state("RUNNING")
        (self._folder / "srun.pid").unlink(missing_ok=True)
        script = subprocess.Popen(
            ["bash", str(path)],
            env=self._environment(restarts),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=self._run.path,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - there is no thread
        )
        limit = self._resources.time
        began = time.monotonic()
        deadline = began + limit
        warned = terminated = False
        while True:
            with suppress(subprocess.TimeoutExpired):
                code = script.wait(timeout=0.1)
                _await_end(lambda: self._signal_srun(0), 1)  # it ends the tasks; only then by force
                with suppress(ProcessLookupError):
                    os.killpg(script.pid, signal.SIGKILL)
                return code
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
                script.kill()  # the tasks end with it

    def _grace(self) -> int:
        name = self._resources.partition or self._profile.default_partition
        return self._profile.partitions[name].grace

    def _signal_srun(self, number: int) -> bool:
        """To the tasks' parent, which passes it on; 0 only asks. False when it does not run."""
        try:
            os.kill(int((self._folder / "srun.pid").read_text()), number)
        except (OSError, ValueError):
            return False
        return True


def _main() -> int:
    run, shard = RunDir(Path(sys.argv[1])), sys.argv[2:]
    folder = run.path / "local" / "-".join(shard)
    supervisor = Supervisor(run, load_resolved(run.spec_file), load_profile(run.profile_file), folder)
    return supervisor.serve(int(shard[0]), int(shard[1])) if shard else supervisor.main()


if __name__ == "__main__":
    sys.exit(_main())
