"""Rollout servers on a real SLURM: an array beside the trainer, each preempted and tried again alone, one run's end."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Cluster, has_event, outcome, wait_for_event, wait_until
from tests.cluster.rollout_runs import SERVER, answers, assert_every_answer_once, submit_rollout
from xgen.runs import RunDir, read_events
from xgen.runs.shards import finished_shards

pytestmark = pytest.mark.cluster
PREEMPTIBLE = {"partition": "preempt", "nodes": 1, "gpus_per_node": 1, "time": "5m", "memory": "1GB"}


def submit(cluster: Cluster, folder: Path, steps: int, pause: float, **keys: Any) -> RunDir:
    resources = {"partition": "gpu", "nodes": 1, "gpus_per_node": 0, "time": "5m", "memory": "2GB"}
    return submit_rollout(
        folder, cluster.profile, steps=steps, pause=pause, servers=PREEMPTIBLE, **{"resources": resources} | keys
    )


def servers(run: RunDir) -> list[int]:
    """Process ids of the servers themselves."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_text()
        except OSError:
            continue
        if SERVER in line and str(run.path) in line and "xgen.cli.task" not in line:
            found.append(int(folder.name))
    return found


def job_ids(run: RunDir) -> list[str]:
    return [run.job_file(stage).read_text().strip() for stage in (0, 1)]


def in_queue(run: RunDir) -> list[str]:
    """Names of its jobs."""
    command = ["squeue", "--noheader", "--format=%j"]
    names = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    return [name for name in names if name.startswith(run.name)]


def wait_for_answers(run: RunDir, number: int, timeout: float = 120) -> None:
    wait_until(
        lambda: len(answers(run)) >= number, timeout, f"{number} answers of {run.name}, {len(answers(run))} there"
    )


def starts(run: RunDir) -> int:
    return sum(event.event == "started" for event in read_events(run))


def test_servers_and_trainer_are_each_preempted_alone_and_the_run_ends_once(cluster: Cluster, tmp_path: Path) -> None:
    run = submit(cluster, tmp_path, steps=40, pause=0.02)
    array, trainer = job_ids(run)
    wait_for_answers(run, 6)
    shards = [run.shard("rollout", number) for number in (0, 1)]
    assert [starts(shard) for shard in shards] == [1, 1]
    assert (
        "Dependency=(null)"
        in subprocess.run(
            ["scontrol", "show", "job", trainer], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    )

    # The server's process dies: its keeper starts another, and no job ends.
    before = servers(run)
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(servers(run)) == 2 and before[0] not in servers(run), 60, "another server")

    # Another job takes the GPUs: the servers are preempted, the trainer waits for them.
    cluster.preempt(seconds=3)
    wait_until(lambda: min(starts(shard) for shard in shards) == 2, 120, "both servers again")
    assert [outcome(shard, 1).status for shard in shards] == ["stopped", "stopped"]
    assert starts(run) == 1
    seen = len(answers(run))
    wait_for_answers(run, seen + 6)

    # The trainer is told to stop: the servers stay.
    subprocess.run(["scancel", "--signal=USR2", trainer], check=True, timeout=60)
    wait_until(lambda: starts(run) == 2, 120, "the trainer again")
    assert [starts(shard) for shard in shards] == [2, 2]

    wait_for_event(run, "finished", timeout=180)
    assert_every_answer_once(run, steps=40)
    wait_until(lambda: not in_queue(run), 60, f"no job of it in the queue: {in_queue(run)}")
    assert finished_shards(run, "rollout") == {0, 1}
    assert [event.event for event in read_events(run)].count("finished") == 1
    assert cluster.status(run)["state"] == "finished"
    assert job_ids(run) == [array, trainer]  # requeued, not submitted anew
    assert servers(run) == []


@pytest.mark.together
def test_servers_end_when_the_trainer_fails_for_good(cluster: Cluster, tmp_path: Path) -> None:
    run = submit(cluster, tmp_path, steps=400, pause=0.005, restart={"max_failures": 1})
    wait_for_answers(run, 6)
    (run.path / "crash").touch()
    wait_for_event(run, "failed", timeout=120)
    wait_until(lambda: not in_queue(run), 60, f"no job of it in the queue: {in_queue(run)}")
    assert [outcome(run.shard("rollout", number), 1).status for number in (0, 1)] == ["finished", "finished"]
    assert cluster.status(run)["state"] == "failed"


@pytest.mark.together
def test_cancelling_ends_all(cluster: Cluster, tmp_path: Path) -> None:
    run = submit(cluster, tmp_path, steps=400, pause=0.005)
    wait_for_answers(run, 6)
    done = cluster.xgen("cancel", run.name)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not in_queue(run), 90, f"no job of it in the queue: {in_queue(run)}")
    assert cluster.status(run)["state"] == "cancelled"
    assert has_event(run, "finished") is None
    assert servers(run) == []
