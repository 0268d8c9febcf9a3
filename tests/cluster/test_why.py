"""`xgen why` about reasons to wait that are planted on a real SLURM. The deaths: test_why_died.py."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import Cluster, empty_the_queue, sbatch, scontrol, wait_until
from tests.conftest import xgen
from xgen.cluster.slurm import queue
from xgen.runs import RunDir

pytestmark = [pytest.mark.cluster, pytest.mark.together]
SPEC = {
    "kind": "command", "name": "waits", "command": ["true"], "lead": "5s",
    "resources": {"partition": "why-busy", "gpus_per_node": 1, "memory": "100MB", "time": "5m"},
}  # fmt: skip
# Of its own, for no other test may wait for them: one runs a job at a time, one is to be repaired in two days.
PARTITIONS = {
    "why-busy": "MaxCPUsPerNode=1 Nodes=n1", "why-down": "State=DOWN Nodes=n1",
    "why-short": "MaxTime=1 Nodes=n1", "why-long": "MaxTime=INFINITE Nodes=n1",
}  # fmt: skip
RESERVATIONS = {"why-repair": "Nodes=n1 Flags=MAINT", "why-later": "Nodes=n2"}
ACCOUNTS = {"why-lab": ("GrpTRES=gres/gpu=1",), "why-group": ("Parent=why-lab",), "why-jobs": (), "why-gpus": ()}
USERS = {"why-group": (), "why-jobs": ("MaxJobs=1",), "why-gpus": ("QOS=why-gpus", "DefaultQOS=why-gpus")}


def why(cluster: Cluster, run: RunDir) -> str:
    """As a person reads it at 80 columns, on one line and with RUN for its name."""
    done = xgen("why", run.name, "--cluster", str(cluster.profile), env={"COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert all(len(line) <= 80 or len(line.split()) <= 2 for line in done.stdout.splitlines())  # but a long path
    return " ".join(done.stdout.replace(run.name, "RUN").replace(" |", " ").split())


@dataclass(frozen=True)
class Plant:
    """A run that waits. `update`: words of scontrol about its job; FILLER is a job that runs, FAILED one that did."""

    settings: tuple[str, ...] = ()
    update: str = ""
    said: tuple[str, ...] = ()


BY_ITSELF = "do: nothing; it starts by itself"
WAITS: Mapping[str, Plant] = {
    "Resources": Plant(
        said=(
            "it is the next for its nodes, and they are busy; SLURM expects it to start at 20",
            "asks for 1 node, 1 GPU, 1 CPU, 100M of memory, time 00:05:00; account root, QOS normal",
            "1 running in why-busy: the first to end is job FILLER of root, by 20",
            f"{BY_ITSELF}; xgen top shows who holds them",
        )
    ),
    "Priority": Plant(
        said=(
            "jobs of higher priority wait for the same nodes; SLURM expects it to start at 20",
            "1 waiting before it in why-busy: first job ",
            BY_ITSELF,
        )
    ),
    "Dependency": Plant(
        update="Dependency=afterok:FILLER",
        said=("it waits for the job before it", "afterok:FILLER(unfulfilled) job FILLER filler is running", BY_ITSELF),
    ),
    "DependencyNeverSatisfied": Plant(
        update="Dependency=afterok:FAILED",
        said=(
            "the job that it waits for has failed",
            "afterok:FAILED(failed) job FAILED gone is failed",
            "do: xgen resume RUN, once that is mended",
        ),
    ),
    "BeginTime": Plant(update="StartTime=now+1hour", said=("until its start time", "; not before 20", BY_ITSELF)),
    "JobHeldAdmin": Plant(
        update="hold", said=("an administrator put it on hold", "do: ask them, or scontrol release JOB")
    ),
    "PartitionDown": Plant(
        ("resources.partition=why-down",),
        said=("the partition takes jobs and starts none", "partition why-down has State=DOWN", "or another partition"),
    ),
    "PartitionTimeLimit": Plant(
        ("resources.partition=why-short",),
        said=(
            "its time is more than the partition allows",
            "partition why-short has MaxTime=00:01:00; the job has TimeLimit=00:05:00",
            "do: write less resources.time",
        ),
    ),
    "AssocMaxJobsLimit": Plant(
        ("project=why-jobs", "resources.partition=gpu"),
        said=(
            "its account or user may have no more jobs at a time",
            "user root in account why-jobs has MaxJobs=1, 1 in use",
            "do: nothing; it starts when other jobs of yours end",
        ),
    ),
    "AssocGrpGRES": Plant(
        ("project=why-group", "resources.partition=gpu"),
        said=(
            "its account or user may have no more GPUs",
            "account why-lab has GrpTRES gres/gpu=1, 1 in use",  # the account above its own
            "do: nothing; it starts when other jobs of them end",
        ),
    ),
    "QOSMaxGRESPerUser": Plant(
        ("project=why-gpus", "resources.partition=gpu", "resources.gpus_per_node=2"),
        said=(
            "its QOS may have no more GPUs for one user",
            "asks for 1 node, 2 GPUs, 2 CPUs, 100M of memory",
            "QOS why-gpus has MaxTRESPU gres/gpu=1, 0 in use",
            "do: write less resources: one job alone is over the limit",
        ),
    ),
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": Plant(
        ("resources.partition=why-long", "resources.time=3d"),
        said=(
            "nodes that it needs are down, drained, reserved or in another's use; SLURM expects it to start at 20",
            "reservation why-repair of n1, 20",
            "(MAINT,SPEC_NODES)",
            "do: nothing, if they come back in time; else write another partition, or fewer resources.nodes",
        ),
    ),
    "Reservation": Plant(
        update="Reservation=why-later",
        said=("it waits for a reservation to begin", "reservation why-later of n2, 20", BY_ITSELF),
    ),
}


def sacctmgr(*words: str, check: bool = True) -> None:
    subprocess.run(["sacctmgr", "-i", *words], check=check, timeout=60, capture_output=True)


@contextmanager
def planted() -> Iterator[dict[str, str]]:
    """What the runs wait for. Gives the numbers of the jobs that are spoken of."""
    uproot()  # what a run that was aborted has left
    try:
        for name, words in PARTITIONS.items():
            scontrol("create", f"PartitionName={name}", *words.split())
        for name, words in RESERVATIONS.items():
            times = ("StartTime=now+2days", "Duration=60", "Users=root")
            scontrol("create", "reservation", f"ReservationName={name}", *times, *words.split())
        sacctmgr("add", "qos", "why-gpus", "MaxTRESPerUser=gres/gpu=1")
        for name, limits in ACCOUNTS.items():
            sacctmgr("add", "account", name, "Cluster=xgen-dev", *limits)
        for name, limits in USERS.items():
            sacctmgr("add", "user", "root", f"Account={name}", *limits)
        gone = sbatch("--partition=gpu", "--job-name=gone", "--wrap", "exit 1")
        filler = sbatch("--partition=why-busy", "--job-name=filler", "--time=30", "--wrap", "sleep 900")
        sbatch("--partition=gpu", "--account=why-jobs", "--job-name=filler", "--time=30", "--wrap", "sleep 900")
        sbatch(
            "--partition=gpu",
            "--account=why-group",
            "--gpus=1",
            "--job-name=filler",
            "--time=30",
            "--wrap",
            "sleep 900",
        )
        wait_until(lambda: sum(row.state == "RUNNING" and row.name == "filler" for row in queue()) == 3, 90, "fillers")
        wait_until(lambda: "JobState=FAILED" in scontrol("show", "job", gone), 90, "a job that failed")
        yield {"FILLER": filler, "FAILED": gone}
    finally:
        uproot()


def uproot() -> None:
    """All that is planted, as far as it is there."""
    try:
        for whose in (*(f"--partition={name}" for name in PARTITIONS), *(f"--account={name}" for name in ACCOUNTS)):
            empty_the_queue(whose)
    finally:
        for name in RESERVATIONS:
            scontrol("delete", f"ReservationName={name}", check=False)
        for name in PARTITIONS:
            scontrol("delete", f"PartitionName={name}", check=False)
        for name in reversed(ACCOUNTS):
            sacctmgr("delete", "account", name, check=False)
        sacctmgr("delete", "qos", "why-gpus", check=False)


def with_numbers(text: str, numbers: Mapping[str, str]) -> str:
    for of, number in numbers.items():
        text = text.replace(of, number)
    return text


def test_reasons_to_wait_are_told_with_what_is_behind_them_and_when_the_wait_ends(
    cluster: Cluster, tmp_path: Path
) -> None:
    profile = yaml.safe_load(cluster.profile.read_text())
    profile["partitions"] |= {name: {"max_time": "9d"} for name in PARTITIONS}
    cluster = replace(cluster, profile=tmp_path / "waits.yaml")
    cluster.profile.write_text(yaml.safe_dump(profile))
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(SPEC))

    def has_come(reason: str, run: RunDir) -> bool:
        """Whether it waits for this reason, and SLURM has found out when it starts, where that is told."""
        (row,) = [row for row in queue() if row.name == run.name]
        return row.reason == reason and (row.start != "N/A" or "expects it to start" not in WAITS[reason].said[0])

    runs: dict[str, RunDir] = {}
    jobs: dict[str, str] = {}
    with planted() as numbers:
        try:
            for reason, plant in WAITS.items():
                runs[reason] = run = cluster.submit(spec, *plant.settings)
                jobs[reason] = job = (run.path / "jobs/0").read_text().strip()
                if words := with_numbers(plant.update, numbers):
                    scontrol(*([words, job] if "hold" in words else ["update", f"JobId={job}", words]))
            for reason, run in runs.items():
                wait_until(lambda: has_come(reason, run), 90, f"{reason} of {run.name}")  # noqa: B023
                told = why(cluster, run)
                for one in WAITS[reason].said:
                    assert with_numbers(one, numbers | {"JOB": jobs[reason]}) in told
        finally:
            subprocess.run(["scancel", *jobs.values()], check=False, timeout=60)
