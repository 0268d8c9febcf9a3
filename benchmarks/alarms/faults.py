"""The faults. Each is planted, told of, taken away, and told of again; what is told of none has to stay silent."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time

from benchmarks.alarms.lab import batch_scripts
from benchmarks.alarms.trial import Script, Trial
from benchmarks.alarms.watch import LabError
from benchmarks.common import ROOT
from tests.cluster.conftest import sbatch, scontrol, task_pids
from xgen.runs import RunDir

_COUNTER = ROOT / "tests/cluster/work/counter.yaml"
_STEPS = 'command=[python3, tests/cluster/work/counter.py, "{}", --step, "0.2"]'
_VALIDATED = ("validation.store=.cache/tiny-store", "validation.every=20", "validation.tokens=1k")
_QUIET = ("resources.partition=calm", "resources.nodes=1", "resources.gpus_per_node=1")


def unsaved(trial: Trial) -> None:
    """Its checkpoints lie on a disk that is too small for one."""
    lab = trial.lab
    with lab.training:
        run = trial.owns(lab.train("unsaved", 1, 2000, "gpu", "checkpoint.every=10", "resources.time=20m", step=1.0))
        run.checkpoints_dir.rename(run.path / "checkpoints-before")
        run.checkpoints_dir.symlink_to(lab.small_disk)
        trial.plants()
        alarm = trial.fires("XgenRunCheckpointTooOld", 560, run=run.name)
        trial.shows("xgen-run", "Checkpoint age over time", lambda _, age: age > 450, run.name)
        trial.shows("xgen-fleet", "Runs", lambda labels, _: labels.get("run") == run.name)
        subprocess.run(["mount", "-o", "remount,size=200m", str(lab.small_disk)], check=True, timeout=30)
        trial.resolves(alarm, 60)
        lab.cancel(run)


def stuck(trial: Trial) -> None:
    """Somebody has closed a partition, and a job waits in it."""
    trial.plants()
    job = sbatch("--partition=shut", "--wrap", "true")
    alarm = trial.fires("XgenQueueStuck", 330, partition="shut")
    trial.shows("xgen-fleet", "Longest wait by partition", lambda of, age: of.get("partition") == "shut" and age > 240)
    trial.shows("xgen-fleet", "Pending jobs by reason", lambda of, _: of.get("reason") == "PartitionDown")
    scontrol("update", "PartitionName=shut", "State=UP")
    trial.resolves(alarm, 100)
    subprocess.run(["scancel", job], check=False, timeout=60)


def flapping(trial: Trial) -> None:
    """A node that somebody, or a health check, takes out and puts back, twice."""
    with trial.lab.nodes:
        time.sleep(5)  # the exporter has seen it well
        trial.plants()
        for seconds in (6, 65):  # what was out of use is recorded every minute
            scontrol("update", "nodename=n4", "state=drain", "reason=fan")
            time.sleep(seconds)
            scontrol("update", "nodename=n4", "state=resume")
            time.sleep(6)
    alarm = trial.fires("XgenNodeFlapping", 30, node="n4")
    trial.shows("xgen-nodes", "Nodes that change most", lambda of, count: of.get("node") == "n4" and count > 3)
    trial.shows("xgen-nodes", "Nodes that were out of use", lambda of, _: of.get("node") == "n4")
    trial.resolves(alarm, 540)


def filling(trial: Trial) -> None:
    """Somebody fills the file system of the runs."""
    disk = os.statvfs(trial.lab.disk)
    size = (disk.f_bavail - int(0.046 * disk.f_blocks)) * disk.f_frsize
    file = trial.lab.disk / "somebodys"
    trial.plants()
    try:
        subprocess.run(["fallocate", "-l", str(size), str(file)], check=True, timeout=60)
        alarm = trial.fires("XgenDiskFilling", 90)
        trial.shows("xgen-fleet", "Disk that is free", lambda _, free: free < 0.05)
    finally:
        file.unlink(missing_ok=True)
    trial.resolves(alarm, 60)


def idle(trial: Trial) -> None:
    """A training that waits for its data all the time."""
    lab = trial.lab
    with lab.training:
        trial.plants()
        run = trial.owns(lab.train("idle", 1, 1500, "calm", "checkpoint.every=5000", batch=2.5))
        alarm = trial.fires("XgenGpusIdle", 240, run=run.name)
        trial.shows(
            "xgen-run", "Where the time went", lambda of, spent: of.get("phase") == "data_wait" and spent > 90, run.name
        )
        trial.shows("xgen-fleet", "What the GPUs do", lambda of, gpus: of.get("phase") == "data_wait" and gpus > 0.5)
        lab.plant(run, batch=0, step=0.05)
        trial.resolves(alarm, 90)
        lab.cancel(run)


def storm(trial: Trial) -> None:
    """kill -9 of a rank, three times."""
    lab = trial.lab
    with lab.training:
        run = trial.owns(lab.train("killed", 2, 100, "calm", "checkpoint.every=5", step=0.5))
        for attempt in (1, 2, 3):
            lab.until(run, "first_step", 90, attempt)
            time.sleep(3)
            trial.plants()
            os.kill(task_pids(run)[1], signal.SIGKILL)
        alarm = trial.fires("XgenRunRestartStorm", 90, run=run.name)
        lab.until(run, "first_step", 90, 4)
        trial.shows(
            "xgen-run", "Restarts by reason", lambda of, count: of.get("reason") == "crashed" and count == 3, run.name
        )
        trial.shows("xgen-pipeline", "Runs", lambda of, count: of.get("run") == run.name and count == 3)
        lab.finish(run)
    trial.resolves(alarm, 60)


def hang(trial: Trial) -> None:
    """SIGSTOP of a rank, until it is told of."""
    lab = trial.lab
    with lab.training:
        run = trial.owns(lab.train("hangs", 2, 400, "calm", "checkpoint.every=40", step=0.5))
        lab.until_step(run, 8)
        rank = task_pids(run)[1]
        trial.plants()
        os.kill(rank, signal.SIGSTOP)
        try:
            alarm = trial.fires("XgenRunStalled", 120, run=run.name)
            trial.shows("xgen-run", "Since the last step", lambda _, age: age > 60, run.name)
            trial.shows("xgen-fleet", "What is wrong now", lambda of, _: of.get("run") == run.name)
        finally:
            os.kill(rank, signal.SIGCONT)
        trial.resolves(alarm, 60)
        lab.cancel(run)  # it goes on; that it would finish, others show


def preempted(trial: Trial) -> None:
    """Somebody with more rights needs the node; the run saves, waits, goes on and finishes."""
    lab = trial.lab
    with lab.training:
        run = trial.owns(lab.train("preempted", 2, 90, "low", "checkpoint.every=40", *_VALIDATED, step=0.5))
        lab.until_step(run, 30)
        trial.plants()
        sbatch("--partition=gpu", "--nodelist=n3", "--nodes=1", "--gpus-per-node=8", "--wrap", "sleep 5")
        lab.until(run, "first_step", 120, 2)
        _restarted(trial, run, "preempted")
        lab.finish(run)
    trial.shows("xgen-pipeline", "Finished", lambda _, count: count >= 1)


def time_limit(trial: Trial) -> None:
    """An attempt comes to its time limit; the next one goes on and finishes."""
    lab = trial.lab
    with lab.training:
        run = trial.owns(lab.train("limited", 1, 110, "calm", "checkpoint.every=500", "resources.time=1m", step=1.0))
        trial.plants()
        lab.until(run, "first_step", 180, 2)
        lab.plant(run, step=0.2)  # or it meets its limit again
        _restarted(trial, run, "time_limit")
        lab.finish(run)


def _restarted(trial: Trial, run: RunDir, reason: str) -> None:
    trial.shows("xgen-run", "Restarts by reason", lambda of, count: of.get("reason") == reason and count == 1, run.name)
    trial.shows("xgen-fleet", "Restarts by reason", lambda of, count: of.get("reason") == reason and count > 0)


def finished(trial: Trial) -> None:
    """A command that does its work and ends."""
    run = trial.owns(trial.lab.submit(_COUNTER, *_QUIET, "name=finishes", _STEPS.format(20)))
    trial.plants()
    trial.lab.until(run, "finished", 90)
    trial.shows("xgen-pipeline", "States over time", lambda of, state: of.get("run") == run.name and state == 0)


def spoilt(trial: Trial) -> None:
    """The loss is NaN for a while."""
    lab = trial.lab
    with lab.training:
        run = trial.owns(lab.train("spoilt", 1, 45, "calm", "checkpoint.every=500", step=0.6))
        lab.until_step(run, 5)
        trial.plants()
        lab.plant(run, nan=14)
        alarm = trial.fires("XgenRunLossNotFinite", 30, run=run.name)
        row = trial.fires("XgenRunLossSpiking", 30, run=run.name)
        trial.shows("xgen-run", "Loss", lambda _, loss: math.isnan(loss), run.name)
        trial.shows(
            "xgen-run", "What the guard did", lambda of, count: of.get("action") == "skip" and count > 2, run.name
        )
        trial.resolves(alarm, 60)
        lab.finish(run)
    trial.resolves(row, 60)


def node_down(trial: Trial) -> None:
    """A node loses its power under a training."""
    lab = trial.lab
    with lab.training:
        run = trial.owns(lab.train("node-down", 1, 60, "solo", "checkpoint.every=10", step=0.5))
        lab.until_step(run, 15)
        trial.plants()
        lab.kill_node("n2", lab.job(run), run)
        alarm = trial.fires("XgenRunNotAnswering", 40, run=run.name)
        trial.shows("xgen-nodes", "Nodes down", lambda _, count: count >= 1, seconds=60)
        trial.shows("xgen-exporter", "Trainers that do not answer", lambda of, _: of.get("run") == run.name)
        with lab.nodes:
            lab.mend()
        trial.resolves(alarm, 120)
        lab.finish(run)


def lost(trial: Trial) -> None:
    """The batch script is killed, and nobody decides."""
    lab = trial.lab
    run = trial.owns(lab.submit(_COUNTER, *_QUIET, "name=lost", _STEPS.format(80)))
    lab.until(run, "started", 60)
    time.sleep(3)
    trial.plants()
    for pid in batch_scripts(run):
        os.kill(pid, signal.SIGKILL)
    alarm = trial.fires("XgenRunLost", 120, run=run.name)
    trial.shows("xgen-pipeline", "Lost", lambda _, count: count >= 1)
    done = lab.cluster.xgen("resume", run.name)
    if done.returncode:
        raise LabError(done.stderr)
    trial.resolves(alarm, 90)
    lab.until(run, "finished", 90)


def sacct_hangs(trial: Trial) -> None:
    """sacct does not answer; all else does."""
    trial.plants()
    file = trial.lab.folder / "sacct-hangs"
    file.touch()
    try:
        alarm = trial.fires("XgenExporterBlind", 150, collector="ended")
        trial.shows("xgen-exporter", "Polls", lambda of, good: of.get("collector") == "ended" and good == 0)
    finally:
        file.unlink()
    trial.resolves(alarm, 90)


def blind(trial: Trial) -> None:
    """The exporter is killed."""
    trial.plants()
    trial.lab.watch.kill_exporter()
    alarm = trial.fires("XgenExporterBlind", 60, severity="critical")
    trial.shows("xgen-exporter", "Exporter", lambda _, up: up == 0)
    trial.lab.watch.start_exporter()
    trial.resolves(alarm, 60)


def no_scheduler(trial: Trial) -> None:
    """slurmctld is killed, and comes back."""
    trial.plants()
    trial.lab.kill_controller()
    alarm = trial.fires("XgenSchedulerDown", 60)
    trial.shows("xgen-exporter", "Scheduler", lambda _, up: up == 0)
    time.sleep(20)  # long enough for all that asks it to be blind
    trial.lab.mend()
    trial.resolves(alarm, 60)
    time.sleep(15)  # and what comes late is seen


FAULTS = (
    Script("unsaved", "a disk too small for a checkpoint", unsaved, hardy=True),
    Script("flapping", "a node out and back, twice", flapping, hardy=True),
    Script("idle", "GPUs held, data never there", idle),
    Script("queue", "a partition that is closed", stuck),
    Script("preemption", "preempted, resumed, finished", preempted),
    Script("kill", "kill -9 of a rank, three times", storm),
    Script("node", "a node that loses its power", node_down),
    Script("disk", "the runs' disk 95 % full", filling),
    Script("lost", "kill -9 of the batch script", lost),
    Script("finish", "a command that ends", finished),
    Script("sacct", "sacct that hangs", sacct_hangs),
    Script("hang", "SIGSTOP of a rank", hang),
    Script("nan", "a loss of NaN", spoilt),
    Script("time-limit", "time limit, resumed, finished", time_limit),
    Script("exporter", "kill -9 of the exporter", blind, last=True),
    Script("scheduler", "kill -9 of slurmctld", no_scheduler, last=True),
)
LAST = tuple(script.name for script in FAULTS if script.last)
