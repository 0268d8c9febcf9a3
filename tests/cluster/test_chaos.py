"""A sample of `python -m benchmarks.chaos`, of its own parts: few runs, and each fault until it has hit one of them."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.alarms.lab import Bench
from benchmarks.chaos.campaign import Campaign, make_project, undisturbed
from benchmarks.chaos.judge import accounting, by_fault, wrongs
from benchmarks.chaos.plan import ClusterFault, Planned
from tests.cluster.conftest import Cluster

pytestmark = pytest.mark.cluster

STEPS = 24  # of a training
# Long after their faults: nobody strikes while a submission waits for its controller.
RUNS = (
    Planned(1, "training", STEPS, (("kill rank", 12),)),
    Planned(2, "command", 450, (("crash", 202),)),
    Planned(3, "command", 450, (("kill batch", 205),)),
    Planned(4, "command", 450, (("hang", 210),)),
    Planned(5, "command", 450, (("signal", 215),)),
    Planned(6, "command", 450, (("kill rank", 220),)),
    Planned(7, "command", 450, (("NaN", 300),)),
)
# What a controller is killed under the submission of: one is enough, unless it is refused and others end first.
SPARE = tuple(Planned(number, "command", 40, ()) for number in (8, 9, 10))
# Without the full disk, which needs a small one; the lost node, whose jobs SLURM may miss minutes later; and the time
# limit, which is a minute at least.
CLUSTER_FAULTS: tuple[ClusterFault, ...] = (
    "kill slurmd", "slurmctld at submit", "slurmctld at requeue", "node down", "preempt",
)  # fmt: skip
# Seconds: what happened later is forgotten by a controller that is killed, and some of it SLURM mends after minutes.
FORGOTTEN = 6.0


@pytest.fixture
def bench(cluster: Cluster) -> Iterator[Bench]:
    bench = Bench(cluster)
    yield bench
    bench.mend()  # of what a campaign that failed has left


def test_runs_under_faults_of_all_kinds_end_as_undisturbed_ones_do(bench: Bench, tmp_path: Path) -> None:
    began = time.time()
    project = make_project(tmp_path / "project")
    reference = undisturbed(bench, project, STEPS, print)
    campaign = Campaign(bench, [*RUNS, *SPARE], project, at_once={"command": 6, "training": 1})
    campaign.faults = until_each_has_hit(campaign)
    campaign.play(400, print)
    time.sleep(1)  # accounting comes a little later
    assert wrongs(campaign, reference, accounting(began)) == []
    planned = {fault for one in RUNS for fault, _ in one.faults}
    assert {fault for fault, (_, hit) in by_fault(campaign.injections).items() if hit} == planned | {*CLUSTER_FAULTS}


def until_each_has_hit(campaign: Campaign) -> Iterator[tuple[float, ClusterFault, str]]:
    for fault in CLUSTER_FAULTS:
        is_time = (
            is_calm if fault in ("kill slurmd", "slurmctld at submit", "slurmctld at requeue") else has_killed_batch
        )
        while not any(one.fault == fault and one.runs for one in campaign.injections):
            deadline = time.monotonic() + 20
            while not is_time(campaign) and time.monotonic() < deadline:
                time.sleep(0.5)
            yield 1, fault, node(campaign)


def is_calm(campaign: Campaign) -> bool:
    """Whether all that were to be submitted have begun, and SLURM has written down what it did."""
    told = [one.run.path / "events/host.jsonl" for one in campaign.runs]
    if len(campaign.waiting) > len(SPARE) or not all(file.exists() for file in told):
        return False
    return time.time() - max(file.stat().st_mtime for file in told) > FORGOTTEN


def has_killed_batch(campaign: Campaign) -> bool:
    return any(one.fault == "kill batch" for one in campaign.injections)


def node(campaign: Campaign) -> str:
    """That of the run whose batch script was killed, which SLURM may miss minutes later; else that of most runs."""
    batch = [f"--name={one.run.name}" for one in campaign.runs if one.planned.has("kill batch")]
    asked = ["squeue", "--noheader", "--states=running", "--format=%N"]
    for options in (batch, []):
        done = subprocess.run([*asked, *options], capture_output=True, text=True, timeout=60, check=False)
        if nodes := done.stdout.split():
            return Counter(nodes).most_common(1)[0][0]
    return "n1"
