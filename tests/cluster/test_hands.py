"""Hands on a running job, on a real SLURM: held and released, and a command beside a task in its container."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster, outcome, steps, wait_for_event, wait_for_steps, wait_until
from tests.cluster.test_contract import COUNTER, counter
from tests.cluster.test_training import SPEC, losses
from tests.conftest import xgen
from xgen.cluster import slurm
from xgen.runs import RunDir, read_events
from xgen.train.compare import compare_checkpoints

pytestmark = pytest.mark.cluster


def said(cluster: Cluster, *arguments: str) -> str:
    done = cluster.xgen(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.together
def test_a_run_that_is_held_and_told_to_stop_waits_in_the_queue_until_it_is_released(cluster: Cluster) -> None:
    run = cluster.submit(COUNTER, counter(5000))
    wait_for_steps(run, attempt=1)
    assert "its next attempt waits until xgen release" in said(cluster, "hold", run.name)
    said(cluster, "requeue", run.name)
    wait_for_event(run, "requeued")
    wait_until(lambda: cluster.status(run)["state"] == "pending", 60, "in the queue")
    job = cluster.status(run)["job_id"]
    assert "you put the run on hold" in said(cluster, "why", run.name).replace("\n", " ")
    assert json.loads(said(cluster, "release", run.name, "--json"))["released_jobs"] == [job]
    wait_for_steps(run, attempt=2)
    assert (outcome(run, 1).status, run.last_attempt()) == ("stopped", 2)
    assert wait_for_event(run, "requeued").reason == "other"
    done = [step for attempt in (1, 2) for step in steps(run, attempt)]
    assert done == list(range(1, len(done) + 1))
    said(cluster, "cancel", run.name)


@pytest.mark.together
def test_a_command_runs_beside_a_task_on_its_node_in_its_container(boxed: Cluster) -> None:
    script = 'echo "$SLURM_PROCID $SLURMD_NODENAME $XGEN_ATTEMPT $PWD $(readlink /proc/self/ns/mnt)"; exit 5'
    runs = {
        runtime: boxed.submit(
            COUNTER,
            counter(1000),
            "resources.partition=gpu",
            "resources.gpus_per_node=2",
            "container.image=xgen-cpu",
            runtime=runtime,
        )
        for runtime in ("charliecloud", "podman")
    }
    for run in runs.values():
        wait_for_steps(run, attempt=1, rank=2)
    for run in runs.values():
        done = xgen("exec", run.name, "--cluster", str(boxed.profile), "--rank", "2", "--", "sh", "-c", script)
        assert done.returncode == 5, done.stderr
        rank, node, attempt, folder, namespace = done.stdout.split()
        assert (rank, attempt, folder) == ("2", "1", str(run.code_dir))
        assert node != _first_node(run)
        assert namespace != str(Path("/proc/self/ns/mnt").readlink())
        assert boxed.xgen("cancel", run.name).returncode == 0


def _first_node(run: RunDir) -> str:
    nodes = wait_for_event(run, "started").nodes or ""
    done = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()[0]


@pytest.mark.together
def test_a_training_that_is_sent_back_ends_as_one_that_was_resumed_there_by_hand(cluster: Cluster) -> None:
    # One rank with a sequence a step: its steps are short, and yet it is caught in the act.
    settings = ("resources.nodes=1", "resources.gpus_per_node=1", "resources.partition=gpu",
                "stages.0.parallelism.fsdp=1", "stages.0.global_batch=256", "stages.0.tokens=30720",
                "stages.0.lr.warmup=4", "checkpoint.every=10", "checkpoint.keep=13")  # fmt: skip
    sent, by_hand = (cluster.submit(SPEC, *settings) for _ in range(2))

    def wait_for_checkpoint(run: RunDir) -> None:
        wait_until(lambda: 10 in run.checkpoint_steps(), 150, f"a checkpoint of {run.name}")

    def send_back() -> None:
        wait_for_checkpoint(sent)
        assert json.loads(said(cluster, "requeue", sent.name, "--from", "10", "--json"))["from"] == 10

    with ThreadPoolExecutor() as threads:  # each as soon as it has saved, for it must not end before
        is_sent = threads.submit(send_back)
        wait_for_checkpoint(by_hand)
        said(cluster, "cancel", by_hand.name)
    is_sent.result()
    wait_for_event(by_hand, "cancelled")
    wait_until(lambda: cluster.status(by_hand)["state"] == "cancelled", 60, "its end")
    said(cluster, "checkpoints", by_hand.name, "--rollback", "10")
    said(cluster, "resume", by_hand.name)
    for run in (sent, by_hand):
        wait_for_event(run, "finished", timeout=180)
        assert run.last_attempt() == 2
        assert wait_for_event(run, "restore_end", 2).step == 10
    assert len({event.job_id for event in read_events(sent) if event.event == "started"}) == 1
    assert losses(sent) == losses(by_hand)
    assert sorted(losses(sent)) == list(range(1, 121))
    count, differing = compare_checkpoints(*(run.checkpoints_dir / "step-120" for run in (sent, by_hand)))
    assert count > 100
    assert differing == []


def controller() -> int:
    """Process id of slurmctld."""
    return int(Path("/var/lib/xgen-dev-slurm/run/slurmctld.pid").read_text())


@contextmanager
def stopped_controller() -> Iterator[None]:
    os.kill(controller(), signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(controller(), signal.SIGCONT)


def test_while_the_controller_stands_still_no_command_hangs_and_nothing_is_done_twice(
    cluster: Cluster, tmp_path: Path
) -> None:
    one = ("resources.nodes=1", "resources.gpus_per_node=1", "resources.partition=gpu")
    runs, unwanted = (cluster.submit(COUNTER, counter(5000), *one) for _ in range(2))
    waits = cluster.submit(COUNTER, counter(5000), "resources.nodes=4", "resources.gpus_per_node=8")
    for run in (runs, unwanted):
        wait_for_steps(run, attempt=1)
    # Commands of SLURM whose controller stops as they are called.
    late = tmp_path / "late"
    late.mkdir()
    for name in ("scontrol", "scancel"):
        (late / name).write_text(f'#!/bin/sh\nkill -STOP {controller()}\nexec {shutil.which(name)} "$@"\n')
        (late / name).chmod(0o755)

    def ask(command: str, run: RunDir, path: str = os.environ["PATH"]) -> tuple[int, str]:
        began = time.monotonic()
        env = {"XGEN_SCHEDULER_TIMEOUT": "4", "PATH": path}
        done = xgen(command, run.name, "--cluster", str(cluster.profile), env=env)
        assert time.monotonic() - began < 60  # of which most is the start of many at once
        return done.returncode, done.stdout + done.stderr

    def ask_late(command: str, run: RunDir) -> str:
        try:
            code, answer = ask(command, run, f"{late}:{os.environ['PATH']}")
        finally:
            os.kill(controller(), signal.SIGCONT)
        assert (code, "did not answer within 4 s; " in answer) == (3, True), answer
        return answer

    with stopped_controller(), ThreadPoolExecutor() as threads:
        asked = {name: threads.submit(ask, name, runs) for name in ("hold", "release", "requeue", "status", "why")}
        asked["cancel"] = threads.submit(ask, "cancel", unwanted)
    answers = {name: future.result() for name, future in asked.items()}
    assert {name: code for name, (code, _) in answers.items()} == {
        "hold": 3, "release": 3, "requeue": 3, "cancel": 3, "status": 0, "why": 0,
    }  # fmt: skip
    assert all("squeue did not answer within 4 s" in " ".join(said.split()) for _, said in answers.values())
    assert not runs.held_file.exists()
    assert {event.event for event in read_events(runs)}.isdisjoint({"held", "released", "asked", "signal"})

    assert f"{waits.name} is marked as held" in ask_late("hold", waits)
    said(cluster, "hold", waits.name)
    assert "is held still: write xgen release" in ask_late("release", waits)
    assert waits.held_file.exists()
    said(cluster, "release", waits.name)
    assert [row.reason for row in slurm.queue() if row.name == waits.name] != ["JobHeldUser"]
    assert "it may hear it yet" in ask_late("requeue", runs)
    said(cluster, "requeue", runs.name)
    wait_for_steps(runs, attempt=2)
    said(cluster, "cancel", unwanted.name)
    wait_for_event(unwanted, "cancelled")
    assert (runs.last_attempt(), unwanted.last_attempt(), waits.last_attempt()) == (2, 1, 0)
    assert steps(runs, 2)[0] == steps(runs, 1)[-1] + 1
