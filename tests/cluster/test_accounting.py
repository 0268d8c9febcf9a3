"""The GPU-hours of the runs' own events and those of SLURM's accounting are the same, whichever way a run goes on."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import pytest

from tests.cluster.conftest import Cluster, has_event, wait_for_event, wait_until
from xgen.metrics.slurm.accounting import held
from xgen.metrics.slurm.rows import HeldRow
from xgen.runs import read_events

pytestmark = pytest.mark.cluster
_LONG = 100  # seconds
_JOB = ("jobs/tiny/hello.yaml", f"command=[sleep, '{_LONG}']", "resources.nodes=1")


@pytest.mark.together
def test_hours_agree_with_sacct_within_a_hundredth_and_phases_sum_to_wall_time(cluster: Cluster) -> None:
    """A hundredth beside the second of each attempt that SLURM may cut off: it writes ends down in whole ones."""
    began = time.time()
    run = cluster.submit(*_JOB, "resources.gpus_per_node=2")
    array = cluster.submit(*_JOB, "resources.gpus_per_node=1", "array.shards=3")
    shards = [array.shard("", number) for number in range(3)]
    wait_for_event(run, "container_ready", 1)
    assert cluster.xgen("requeue", run.name).returncode == 0
    first = wait_for_event(shards[1], "container_ready", 1)
    subprocess.run(["scancel", "--signal=USR2", first.job_id], check=True, timeout=60)
    for one, attempt in ((run, 2), (shards[1], 2), (array, 1)):
        wait_for_event(one, "finished", attempt, timeout=2 * _LONG)

    jobs = {e.job_id for one in (run, *shards) for e in read_events(one) if e.event == "started"}
    rows: list[HeldRow] = []

    def all_ended() -> bool:
        """slurmdbd hears of an end some seconds late."""
        rows[:] = [row for row in held(["root"], began, time.time()) if row.job in jobs]
        return len(rows) == 2 + 4 and all(row.end for row in rows)

    wait_until(all_ended, 60, f"six starts and ends in {rows}")
    for one in (run, shards[1]):
        again = wait_for_event(one, "started", 2)
        assert again.allocated == max(row.start or 0 for row in rows if row.job == again.job_id)
    done = cluster.xgen("usage", "--since", "all", "--by", "run", "--json")
    assert done.returncode == 0, done.stderr
    used: dict[str, Any] = json.loads(done.stdout)
    cut = sum(row.gpus for row in rows) / 3600
    events, sacct = used["sacct"]["events"], used["sacct"]["sacct"]
    assert abs(sacct - events) <= 0.01 * events + cut, used["sacct"]

    (mine,) = [row for row in used["rows"] if row["run"] == run.name]
    last = has_event(run, "finished")
    assert last is not None
    assert sum(mine["phases"].values()) == pytest.approx(mine["hours"])
    wall = (last.time - read_events(run)[0].time) / 3600
    assert mine["hours"] / 2 + mine["queued_hours"] == pytest.approx(wall)
