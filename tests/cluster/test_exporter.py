"""The exporter beside a real SLURM: its numbers are SLURM's own, in rows and in JSON, and a dead controller is seen."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster, sbatch, scontrol, wait_until
from tests.conftest import ROOT
from tests.metrics.fake_slurm import Series, read_page, value
from xgen.metrics.exporter import Collector
from xgen.metrics.exporter.page import render
from xgen.metrics.slurm import Controller, Ended, Nodes, Queue, Scheduler, Shares

pytestmark = pytest.mark.cluster
STATE = Path("/var/lib/xgen-dev-slurm")
REASON = "fan 3 | row 2"


def polled(collector: Collector) -> Series:
    return read_page(render(collector.poll()).text.decode())


def jobs_in(state: str) -> int:
    return int(value(polled(Queue(["gpu"])), f"slurm_jobs_{state}") or 0)


@pytest.fixture
def busy(cluster: Cluster) -> Iterator[None]:
    """Two nodes with four GPUs each at work, an array and a held job that wait, a node that is drained."""
    scontrol("update", "nodename=n4", "state=drain", f"reason={REASON}")
    try:
        sbatch(
            "--partition=gpu", "--nodes=2", "--gpus-per-node=4", "--comment=hunter2", "--wrap", "sleep 120 # hunter2"
        )
        wait_until(lambda: jobs_in("running") == 1, 30, "a job that runs")
        sbatch("--partition=gpu", "--array=0-9%3", "--nodes=3", "--gpus-per-node=8", "--wrap", "sleep 1")
        sbatch("--partition=preempt", "--hold", "--wrap", "true")
        # The array's line says why it waits once the scheduler has looked at it.
        wait_until(lambda: waiting("gpu").keys() & {"Resources", "Priority"}, 30, "an array that waits")
        yield
    finally:
        subprocess.run(["scancel", "--user=root"], check=False, timeout=60)
        scontrol("update", "nodename=n4", "state=resume")


def _squeue() -> str:
    return subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, timeout=60, check=True).stdout


def waiting(partition: str) -> dict[str, float]:
    """Pending jobs by reason."""
    return {
        dict(labels)["reason"]: count
        for (name, labels), count in polled(Queue()).items()
        if name == "xgen_slurm_pending_jobs" and dict(labels)["partition"] == partition
    }


@pytest.mark.usefixtures("busy")
def test_the_numbers_are_those_of_slurm() -> None:
    queue, nodes = polled(Queue(["gpu", "preempt"])), polled(Nodes())
    assert value(queue, "slurm_jobs_running") == 1
    assert value(queue, "slurm_jobs_pending") == 11  # ten tasks of the array
    assert value(queue, "slurm_partition_jobs_pending", partition="gpu") == 10
    assert value(queue, "slurm_user_gpus_running", user="root") == 8
    assert value(queue, "slurm_queue_pending", user="root", partition="preempt", reason="JobHeldUser") == 1
    # The held job waits by choice.
    assert value(queue, "xgen_slurm_queue_oldest_pending_seconds", partition="preempt") == 0
    oldest = value(queue, "xgen_slurm_queue_oldest_pending_seconds", partition="gpu")
    assert oldest is not None and 0 < oldest < 120

    gpus = {state: value(nodes, f"slurm_gpus_{state}") for state in ("alloc", "idle", "other", "total")}
    assert gpus == {"alloc": 8, "idle": 16, "other": 8, "total": 32}
    assert value(nodes, "slurm_nodes_total") == 4
    assert value(nodes, "slurm_nodes_drain", partition="gpu", active_feature_set="null") == 1
    assert value(nodes, "slurm_node_drain_reason_info", node="n4", reason=REASON) == 1
    since = value(nodes, "slurm_node_drain_since_timestamp_seconds", node="n4")
    assert since is not None and abs(time.time() - since) < 300
    assert value(nodes, "slurm_cpus_total") == 64


@pytest.mark.usefixtures("busy")
def test_json_says_the_same_and_nothing_private_is_exported(cluster: Cluster) -> None:
    # Of a job that was cancelled while it waited SLURM says the CPUs asked for in rows, and none in JSON.
    rows, from_json = (
        sorted((row for row in queue.rows() if row.state != "CANCELLED"), key=repr)
        for queue in (Queue(), Queue(as_json=True))
    )
    assert rows
    assert rows == from_json
    assert sorted(Nodes().rows(), key=repr) == sorted(Nodes(as_json=True).rows(), key=repr)
    cluster.run_root.mkdir()
    done = cluster.xgen("exporter", "--once")
    assert done.returncode == 0, done.stderr
    assert value(read_page(done.stdout), "xgen_slurm_controller_up") == 1
    assert "hunter2" not in done.stdout


def test_the_scheduler_and_the_shares(cluster: Cluster) -> None:
    scheduler, shares = polled(Scheduler()), polled(Shares())
    assert (value(scheduler, "slurm_scheduler_threads") or 0) >= 1
    assert value(scheduler, "slurm_scheduler_backfill_last_cycle") is not None
    assert (value(scheduler, "slurm_rpc_stats", operation="REQUEST_PARTITION_INFO") or 0) > 0
    version = subprocess.run(["sinfo", "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    assert value(scheduler, "slurm_info", type="general", binary="", version=version.split()[-1]) == 1
    assert value(shares, "slurm_user_fairshare", account="root", user="root") is not None


def test_jobs_that_ended_are_counted_by_how(cluster: Cluster) -> None:
    # A job of an earlier test that ends only now, or in the second in which the count begins, would be counted too.
    wait_until(lambda: not _squeue(), 60, "an empty queue")
    time.sleep(1)
    ended = Ended(["gpu", "preempt"])

    def count(state: str) -> float:
        return value(polled(ended), "xgen_slurm_jobs_ended_total", state=state, partition="gpu") or 0

    assert count("completed") == count("failed") == 0
    sbatch("--partition=gpu", "--array=0-2", "--wrap", "true")
    sbatch("--partition=gpu", "--wrap", "exit 3")
    wait_until(lambda: count("completed") >= 3 and count("failed") >= 1, 180, "three completed, one failed")
    assert (count("completed"), count("failed")) == (3, 1)  # once each


def test_a_controller_that_is_dead_is_seen_and_holds_up_nothing(cluster: Cluster) -> None:
    os.kill(int((STATE / "run/slurmctld.pid").read_text()), signal.SIGKILL)
    try:
        began = time.monotonic()
        done = cluster.xgen("exporter", "--once")
        assert time.monotonic() - began < 70  # at once: no one waits for another's time-out
        assert done.returncode == 1
        series = read_page(done.stdout)
        assert value(series, "xgen_slurm_controller_up") == 0
        failed = [n for n in ("queue", "nodes", "scheduler", "shares") if not value(
            series, "xgen_exporter_collector_success", collector=n)]  # fmt: skip
        assert failed == ["queue", "nodes", "scheduler", "shares"]
        # The database is another daemon.
        assert value(series, "xgen_exporter_collector_success", collector="ended") == 1
    finally:
        subprocess.run([ROOT / "slurm/dev/up"], check=True, timeout=180)
    assert value(polled(Controller()), "xgen_slurm_controller_up") == 1
