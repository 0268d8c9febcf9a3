"""The supervisor of a run of the embedded executor: `python -m xgen.cluster.local_supervisor RUN_DIR`.

It plays the part of slurmctld for one run: puts an `srun` and an `scontrol` on PATH that answer what the batch script
asks, warns the tasks `lead` before the time limit, and runs the script again when it requeues itself. Of a shard that
serves the run there is one more beside it, `python -m xgen.cluster.local_supervisor RUN_DIR STAGE SHARD`.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from xgen.cluster.local import await_end, kill_job, start_supervisor
from xgen.cluster.pipeline import is_pipeline
from xgen.cluster.secrets import KEY_VARIABLE
from xgen.runs import EXIT_STOPPED, STOP_SIGNALS, RunDir, write_atomic
from xgen.runs.bond import die_with_parent
from xgen.spec import Array, Job, Profile, load_profile, load_resolved

_LAST_WORD = 60.0  # seconds for what serves a run, once that has ended

_SCONTROL = """#!/bin/sh
# What the batch script asks of scontrol, answered by xgen's local executor.
case "$1 $2" in
  "show hostnames") echo localhost ;;
  "show node") echo NodeAddr=127.0.0.1 ;;
  "show job") cat {state} ;;
  "requeue Incomplete" | "requeuehold Incomplete") grep -q JobState=CANCELLED {state} || : >{requeue} ;;
  "update JobId="*) case $3 in StartTime=now+*) echo "${{3#*+}}" >{begin} ;; esac ;;
  *) echo "scontrol: not known to the local executor: $*" >&2; exit 1 ;;
esac
"""
_SBATCH = """#!/bin/sh
# A successor: the script once more, as after a requeue.
for word; do case $word in --begin=now+*) echo "${{word#*+}}" >{begin} ;; esac; done
grep -q JobState=CANCELLED {state} || : >{requeue}
echo {number}
"""


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
            start_supervisor(self._run, str(stage), str(shard), preexec_fn=die_with_parent())
            for shard in range(array.shards)
        ]

    def _end_servers(self) -> None:
        """They end by themselves once they see that the run has; what then is left has not seen it."""
        if self._run.ended_file.exists():
            await_end(lambda: any(server.poll() is None for server in self._servers), _LAST_WORD)
        self._tell_servers(signal.SIGTERM)
        await_end(lambda: any(server.poll() is None for server in self._servers), self._profile.kill_wait + 10)
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
            if self._run.held_file.exists():
                self._wait_for_release()
                continue
            if self._waits():
                continue
            self._preempted = False
            (self._folder / "requeue").unlink(missing_ok=True)
            code = self._attempt(script, restarts)
            kill_job(self._run, str(os.getpid()))
            if not (self._folder / "requeue").exists():
                break
            restarts += 1
        return code

    def _waits(self) -> bool:
        """Until the time that the script has set for the next attempt. Returns whether there was one."""
        try:
            seconds = int((self._folder / "begin").read_text())
        except (OSError, ValueError):
            return False
        self._set_state("RUNNING")
        await_end(lambda: not self._cancelled, seconds)
        (self._folder / "begin").unlink(missing_ok=True)
        return True

    def _wait_for_release(self) -> None:
        """As a job waits in SLURM's queue that is held."""
        self._set_state("PENDING")
        while self._run.held_file.exists() and not self._cancelled:
            time.sleep(0.2)

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
        places = {name: shlex.quote(str(self._folder / name)) for name in ("state", "requeue", "begin")}
        scontrol, sbatch = _SCONTROL.format(**places), _SBATCH.format(**places, number=os.getpid())
        for name, text in (("scontrol", scontrol), ("sbatch", sbatch), ("srun", srun)):
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
                await_end(lambda: self._signal_srun(0), 1)  # it ends the tasks; only then by force
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
    if is_pipeline(run):
        from xgen.cluster.pipeline_local import supervise

        return supervise(run)
    folder = run.path / "local" / "-".join(shard)
    supervisor = Supervisor(run, load_resolved(run.spec_file), load_profile(run.profile_file), folder)
    return supervisor.serve(int(shard[0]), int(shard[1])) if shard else supervisor.main()


if __name__ == "__main__":
    sys.exit(_main())
