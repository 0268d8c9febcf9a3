"""The dev SLURM for the faults alone: a disk of its own, partitions apart, and what is done to jobs and daemons."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from benchmarks.alarms.watch import LabError, Watch, wait_for
from benchmarks.common import ROOT, free_port
from tests.cluster.conftest import Cluster, has_event, scontrol, task_pids
from xgen.runs import EventName, RunDir, read_events

STATE = Path("/var/lib/xgen-dev-slurm")
_FOLDER = "xgen-alarms-"
_DISK, _SMALL_DISK = "2500m", "8m"
# Faults of one must not touch the others: each has a node of its own.
_PARTITIONS = {
    "calm": "Nodes=n1 PriorityTier=10",
    "solo": "Nodes=n2 PriorityTier=10",
    "low": "Nodes=n3 PriorityTier=1 PreemptMode=REQUEUE GraceTime=30",
    "shut": "Nodes=n4 PriorityTier=10 State=DOWN",
}
_PROFILE_PARTITIONS = {
    "gpu": {"max_time": "1d", "default": True}, "calm": {"max_time": "1d"}, "solo": {"max_time": "1d"},
    "low": {"max_time": "1d", "preemptible": True, "grace": "30s"}, "shut": {"max_time": "1d"},
    "preempt": {"max_time": "1d", "preemptible": True, "grace": "30s"},
}  # fmt: skip
_TINY = (
    "resources.nodes=1", "resources.memory=3GB", "lead=20s", "stages.0.lr.warmup=4", "data.max_epochs=1000",
    "restart.max_failures=10",
)  # fmt: skip


@dataclass
class Bench:
    """The dev SLURM under a cluster profile: our hand in trainings and daemons."""

    cluster: Cluster

    def prepare(self, run: RunDir, **asked: float) -> None:
        """Our hand in a training that has not begun; `asked` as for `plant`."""
        self.plant(run, **asked)
        trainer = run.path / "code/xgen/train/trainer.py"
        text = trainer.read_text() + "\nfrom benchmarks.alarms.planted import plant\n\nplant(globals())\n"
        trainer.unlink()  # a link: other runs have the same file
        trainer.write_text(text)

    def plant(self, run: RunDir, **asked: float) -> None:
        """`step`, `batch`: seconds that each takes longer; `nan`: the last step whose loss is spoilt."""
        for name, value in asked.items():
            (run.path / "planted").mkdir(exist_ok=True)
            new = run.path / "planted" / f".{name}"
            new.write_text(str(value))
            new.rename(run.path / "planted" / name)

    def kill_controller(self) -> None:
        os.kill(int((STATE / "run/slurmctld.pid").read_text()), signal.SIGKILL)

    def mend(self) -> None:
        subprocess.run([ROOT / "slurm/dev/up"], check=True, timeout=180, capture_output=True)


@dataclass
class Lab(Bench):
    """The whole dev SLURM with a disk of its own, a Prometheus that watches it, and locks for what there is once."""

    folder: Path
    watch: Watch
    training: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(3))
    starting: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(2))
    nodes: threading.Lock = field(default_factory=threading.Lock)  # `up` brings every node back

    @property
    def disk(self) -> Path:
        return self.folder / "disk"

    @property
    def small_disk(self) -> Path:
        return self.folder / "small"

    def submit(self, spec: Path | str, *settings: str) -> RunDir:
        return self.cluster.submit(spec, *settings)

    def train(self, name: str, ranks: int, steps: int, partition: str, *settings: str, **asked: float) -> RunDir:
        """A real training with our hand in its pace (planted.py), once its first step is done."""
        with self.starting:
            run = self.submit(
                ROOT / "jobs/tiny/pretrain.yaml", *_TINY, f"name={name}", f"resources.partition={partition}",
                f"resources.gpus_per_node={ranks}", f"stages.0.parallelism.fsdp={ranks}",
                "stages.0.seq_len=64",
                f"stages.0.global_batch={64 * ranks}", f"stages.0.tokens={64 * ranks * steps}", *settings,
            )  # fmt: skip
            self.prepare(run, **asked)
            self.until(run, "first_step", 120)
        return run

    def until(self, run: RunDir, event: EventName, seconds: float, attempt: int | None = None) -> None:
        wait_for(lambda: has_event(run, event, attempt), seconds, f"{event} of {run.name}, attempt {attempt or 'any'}")

    def until_step(self, run: RunDir, step: int, seconds: float = 60) -> None:
        wait_for(lambda: _last_step(run) >= step, seconds, f"step {step} of {run.name}")

    def finish(self, run: RunDir, seconds: float = 180) -> None:
        """At its pace: a run that speeds up and slows down is another fault."""
        self.until(run, "finished", seconds)

    def cancel(self, run: RunDir) -> None:
        self.cluster.xgen("cancel", run.name)
        self.until(run, "cancelled", 90)

    def job(self, run: RunDir) -> str:
        started = [event for event in read_events(run) if event.event == "started"]
        return started[-1].job_id

    def kill_node(self, node: str, job: str, run: RunDir) -> None:
        """As when it loses its power: its daemon and all that it started are gone."""
        pids = [int((STATE / f"run/slurmd-{node}.pid").read_text()), *steps_of(job), *task_pids(run).values()]
        pids += batch_scripts(run)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _last_step(run: RunDir) -> int:
    return max((event.step for event in read_events(run) if event.event == "progress" and event.step), default=0)


def _processes(word: bytes) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if word in (folder / "cmdline").read_bytes():
                yield int(folder.name)


def steps_of(job: str) -> list[int]:
    """SLURM's own processes of a job, one a step."""
    return list(_processes(f"slurmstepd: [{job}.".encode()))


def batch_scripts(run: RunDir) -> list[int]:
    """The batch script of a run: SLURM's copy of it, which bash reads, in the run's folder."""
    found = []
    for pid in _processes(b"slurm_script"):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cwd").readlink() == run.path:
                found.append(pid)
    return found


@contextlib.contextmanager
def laboratory() -> Iterator[Lab]:
    """The dev SLURM, restarted with our disks in sight of its nodes; as it was before, afterwards, also on SIGTERM.
    Raises LabError."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with (Path(tempfile.gettempdir()) / "xgen-alarms.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError("another benchmarks.alarms has the dev SLURM; wait for its end") from None
        for left in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*/"):  # by one that was killed
            _remove(left)
        yield from _alone()


def _alone() -> Iterator[Lab]:
    slurm = ROOT / "slurm/dev"
    status = subprocess.run([slurm / "status"], capture_output=True, timeout=60, check=False)
    was_up = status.returncode == 0
    if was_up and subprocess.run(["squeue", "-h"], capture_output=True, timeout=60, check=True).stdout:
        raise LabError("the dev SLURM has jobs, and they would be lost; wait for them, or scancel --user=root")
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER))
    try:
        subprocess.run([slurm / "down"], check=True, timeout=120, capture_output=True)
        for disk, size in (("disk", _DISK), ("small", _SMALL_DISK)):
            (folder / disk).mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", f"xgen-{disk}", str(folder / disk)]
            subprocess.run(mount, check=True, timeout=30)
        subprocess.run([slurm / "up"], check=True, timeout=180, capture_output=True)
        for name, options in _PARTITIONS.items():
            scontrol("create", f"PartitionName={name}", "MaxTime=1-0", "DefMemPerCPU=256", *options.split())
        yield from _watched(folder)
    finally:
        subprocess.run(["scancel", "--user=root"], check=False, timeout=60, capture_output=True)
        subprocess.run([slurm / "down"], check=False, timeout=120, capture_output=True)
        _remove(folder)
        if was_up:
            subprocess.run([slurm / "up"], check=True, timeout=180, capture_output=True)


def _remove(folder: Path) -> None:
    for disk in ("disk", "small"):
        subprocess.run(["umount", "--lazy", str(folder / disk)], check=False, timeout=30, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def _watched(folder: Path) -> Iterator[Lab]:
    profile = yaml.safe_load((ROOT / "slurm/clusters/dev.yaml").read_text())
    profile |= {
        "run_root": str(folder / "disk/runs"), "partitions": _PROFILE_PARTITIONS,
        "container": {"runtime": "none", "python": sys.executable},
        "metrics": {"address": "127.0.0.1", "port": free_port()},
    }  # fmt: skip
    (folder / "dev.yaml").write_text(yaml.safe_dump(profile))
    (folder / "disk/runs").mkdir()
    tools = _slow_sacct(folder)
    watch = Watch(folder, folder / "dev.yaml", f"{tools}:{os.environ['PATH']}")
    try:
        watch.start()
        yield Lab(Cluster(folder / "dev.yaml", folder / "disk/runs"), folder, watch)
    finally:
        watch.close()


def _slow_sacct(folder: Path) -> Path:
    """A sacct that hangs as long as there is a file `sacct-hangs`."""
    tools = folder / "bin"
    tools.mkdir()
    script = f'#!/bin/sh\n[ ! -e {folder}/sacct-hangs ] || sleep 3600\nexec {shutil.which("sacct")} "$@"\n'
    (tools / "sacct").write_text(script)
    (tools / "sacct").chmod(0o755)
    return tools
