"""Job arrays on a real SLURM: each shard is preempted, tried again, given up and cancelled alone; the run is one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import (
    Cluster,
    has_event,
    outcome,
    sbatch,
    scontrol,
    wait_for_event,
    wait_until,
)
from tests.conftest import ROOT
from xgen.cluster.prepare import prepare
from xgen.cluster.submit import submit
from xgen.runs import RunDir, read_events
from xgen.spec import Array, Command, Resources, load_job, load_profile

pytestmark = pytest.mark.cluster
SPEC = ROOT / "tests/cluster/work/shards.yaml"


def work(*arguments: object) -> str:
    """`--set` for a shard with these arguments."""
    words = ", ".join(f'"{a}"' for a in ("python3", "tests/cluster/work/shard.py", *arguments))
    return f"command=[{words}]"


def tries(folder: Path) -> list[tuple[str, float]]:
    """When each try of a shard began and ended, in its folder."""
    rows = [line.split() for line in (folder / "tries").read_text().splitlines()] if (folder / "tries").exists() else []
    return [(what, float(time)) for what, time in rows]


def num_tries(run: RunDir, shards: int, stage: str = "") -> list[int]:
    said = [tries(run.shard(stage, shard).path) for shard in range(shards)]
    return [sum(what == "begin" for what, _ in rows) for rows in said]


def wait_for_all(run: RunDir, shards: int, stage: str = "") -> None:
    """Until each shard is in its first try, with its signal handler."""
    wait_until(lambda: min(num_tries(run, shards, stage)) > 0, 60, f"all shards of {run.name} at work")


def said(run: RunDir) -> list[str]:
    return [event.event for event in read_events(run)]


def shards_of(cluster: Cluster, run: RunDir) -> dict[str, Any]:
    (facts,) = json.loads(cluster.xgen("status", run.name, "--json").stdout)["shards"]
    return dict(facts)


def job_of(run: RunDir, shard: int, stage: str = "") -> str:
    event = has_event(run.shard(stage, shard), "started")
    assert event is not None
    return event.job_id


def node_of(run: RunDir, shard: int) -> str:
    return str(has_event(run.shard("", shard), "started").nodes)  # type: ignore[union-attr]


def pid_of_task(shard: RunDir) -> int:
    """Of the only rank of a shard. Its command line names the whole run, its environment the shard."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"XGEN_RUN_DIR={shard.path}".encode() in (folder / "environ").read_bytes().split(b"\0")
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if ours and words[1:3] == [b"-m", b"xgen.cli.task"]:
            return int(folder.name)
    pytest.fail(f"no task of {shard.path}")


def most_at_once(run: RunDir, shards: int) -> int:
    """How many tries overlapped at most."""
    edges = sorted((time, what) for shard in range(shards) for what, time in tries(run.shard("", shard).path))
    now = most = 0
    for _, what in edges:
        now += 1 if what == "begin" else -1
        most = max(most, now)
    return most


@pytest.mark.together
def test_every_shard_runs_once_and_never_more_at_once_than_the_spec_says(cluster: Cluster) -> None:
    run = cluster.submit(SPEC, "array.shards=6", "array.at_once=2")
    wait_for_event(run, "finished")
    assert num_tries(run, 6) == [1] * 6
    assert most_at_once(run, 6) == 2
    assert said(run) == ["submitted", "queued", "started", "finished"]
    array = wait_for_event(run, "queued").job_id
    assert [job_of(run, shard) for shard in range(6)] == [f"{array}_{shard}" for shard in range(6)]
    assert cluster.status(run)["state"] == "finished"
    assert shards_of(cluster, run) == {
        "stage": None, "total": 6, "at_once": 2, "finished": 6, "running": [], "waiting": 0, "given_up": [],
    }  # fmt: skip


def test_a_shard_that_is_preempted_killed_or_loses_its_node_runs_again_alone(cluster: Cluster) -> None:
    # The memory gives each of them a node of its own.
    run = cluster.submit(SPEC, work(20), "resources.memory=9GB", "resources.partition=preempt")
    wait_for_all(run, 4)
    assert shards_of(cluster, run)["running"] == [0, 1, 2, 3]
    # The one that starts last has the number of the whole array: what SLURM is asked for it must not be asked for all.
    os.kill(pid_of_task(run.shard("", 3)), signal.SIGKILL)
    sbatch("--partition=gpu", f"--nodelist={node_of(run, 0)}", "--gpus-per-node=8", "--wrap", "sleep 1")
    lost = node_of(run, 1)
    try:
        scontrol("update", f"nodename={lost}", "state=down", "reason=planted")
        wait_for_event(run.shard("", 1), "started", attempt=2)
    finally:
        subprocess.run(["scontrol", "update", f"nodename={lost}", "state=resume"], check=False, timeout=60)
    wait_for_event(run, "finished")
    assert num_tries(run, 4) == [2, 2, 1, 2]
    assert [outcome(run.shard("", shard), 1).status for shard in (0, 2, 3)] == ["stopped", "finished", "crashed"]
    assert has_event(run.shard("", 0), "requeued").reason == "preempted"  # type: ignore[union-attr]
    assert outcome(run.shard("", 1), 1).status in ("lost", "stopped")
    assert {job_of(run, shard).partition("_")[0] for shard in range(4)} == {has_event(run, "queued").job_id}  # type: ignore[union-attr]
    assert said(run) == ["submitted", "queued", "started", "finished"]


@pytest.mark.together
def test_a_shard_that_fails_for_good_or_is_cancelled_is_given_up_and_a_resume_runs_the_given_up_ones(
    cluster: Cluster,
) -> None:
    run = cluster.submit(SPEC, work(8, "--fail", 1))
    wait_for_all(run, 4)
    subprocess.run(["scancel", job_of(run, 2)], check=True, timeout=60)
    wait_for_event(run.shard("", 2), "cancelled")
    wait_for_event(run, "shard_given_up")
    assert cluster.status(run)["state"] == "running"  # the others go on
    assert "nothing to resume" in cluster.xgen("resume", run.name).stderr
    wait_for_event(run, "failed")
    assert num_tries(run, 4) == [1, 2, 1, 1]
    wait_until(lambda: cluster.status(run)["state"] == "failed", 30, "failed")
    told = cluster.xgen("status", run.name).stdout
    assert "  2 of 4 shards done, 2 given up\n" in told
    assert f"    shard 1 given up: rank 0: the command exited with 1\n      xgen logs {run.name} --shard 1\n" in told
    assert "    shard 2 given up: cancelled by a person\n" in told
    assert "planted failure" in cluster.xgen("logs", run.name, "--shard", "1", "--err").stdout

    (run.path / "mended").touch()
    wait_until(lambda: cluster.xgen("resume", run.name).returncode == 0, 30, "the resume")
    assert shards_of(cluster, run)["given_up"] == []
    followed = cluster.xgen("logs", run.name, "--shard", "1", "--attempt", "2", "-f")
    assert "--- attempt 3\n0: shard 1 of 4\n" in followed.stdout
    wait_for_event(run, "finished")
    assert num_tries(run, 4) == [1, 3, 2, 1]
    again = re.findall(r"^#SBATCH --array=(.*)", (run.shard("", 1).attempt_dir(3) / "sbatch.sh").read_text(), re.M)
    assert again == ["1-2"]
    assert cluster.status(run)["state"] == "finished"


@pytest.mark.together
def test_a_cancelled_run_stops_all_shards_and_starts_no_other(cluster: Cluster) -> None:
    run = cluster.submit(SPEC, work(60), "array.at_once=2")
    wait_for_all(run, 2)
    done = cluster.xgen("cancel", run.name)
    assert done.returncode == 0, done.stderr
    assert "0 of 4 shards done, 2 running, 2 waiting; cancelled" in done.stdout
    wait_until(lambda: cluster.status(run)["state"] == "cancelled", 60, "cancelled")
    assert num_tries(run, 4) == [1, 1, 0, 0]
    assert [outcome(run.shard("", shard), 1).status for shard in (0, 1)] == ["cancelled"] * 2
    assert "shard_given_up" not in said(run)


@pytest.mark.together
def test_shards_that_wait_and_those_that_run_are_held_released_and_requeued(cluster: Cluster) -> None:
    def order(*arguments: str) -> dict[str, Any]:
        done = cluster.xgen(*arguments, run.name, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    run = cluster.submit(SPEC, work(100), "array.at_once=2")
    wait_until(lambda: num_tries(run, 4) == [1, 1, 0, 0], 60, "two shards at work")
    array = wait_for_event(run, "queued").job_id
    assert order("hold")["held_jobs"] == [f"{array}_[2-3]"]
    order("requeue")  # SLURM answers that it cannot signal a shard now, as others wait, and has done so
    wait_until(lambda: cluster.status(run)["state"] == "pending", 60, "all in the queue")
    time.sleep(10)  # longer than cred_expire: what is not held would be at work again
    assert (num_tries(run, 4), shards_of(cluster, run)["waiting"]) == ([1, 1, 0, 0], 4)
    order("release")
    wait_for_all(run, 4)  # which of them come first is SLURM's to choose; those that are tried again last a second
    order("requeue")
    wait_for_event(run, "finished")
    assert num_tries(run, 4) == [2, 2, 2, 2]
    assert most_at_once(run, 4) == 2
    for shard in range(4):
        assert [e.reason for e in read_events(run.shard("", shard)) if e.event == "requeued"] == ["other"]
        assert [outcome(run.shard("", shard), number).status for number in (1, 2)] == ["stopped", "finished"]


def test_more_shards_than_the_cluster_takes_are_refused_with_how_many_it_takes(cluster: Cluster) -> None:
    done = cluster.xgen("submit", str(SPEC), "--set", "array.shards=1002")
    assert done.returncode == 2
    assert done.stderr.endswith("; write array.shards: 1001 or less, which is MaxArraySize there\n")
    assert cluster.xgen("submit", str(SPEC), "--set", "array.shards=1001", "--set", "array.at_once=1").returncode == 0


class Chain(Command):
    """The same command as an array, then once."""

    @property
    def jobs(self) -> tuple[tuple[str, Resources], ...]:
        return ("many", self.resources), ("once", self.resources)

    def array_of(self, stage: int) -> Array | None:
        return self.array if stage == 0 else None


@pytest.mark.together
def test_what_waits_for_an_array_waits_for_all_of_it_and_for_the_successor_of_a_shard(cluster: Cluster) -> None:
    loaded = load_job(SPEC, [work(12), "array.shards=2"])
    chain = Chain.model_construct(**dict(loaded.job))
    prepared = prepare(replace(loaded, job=chain), "dev", load_profile(cluster.profile))
    (array, once), _ = submit(prepared)
    run = prepared.run
    wait_for_all(run, 2, "many")
    # One is requeued, the other is refused that: it ends well, and another job takes its place.
    subprocess.run(["scancel", "--signal=USR2", f"{array}_0"], check=True, timeout=60)
    scontrol("update", f"jobid={array}_1", "requeue=0")
    subprocess.run(["scancel", "--signal=USR2", f"{array}_1"], check=True, timeout=60)
    wait_for_event(run.shard("many", 1), "queued")
    wait_for_event(run, "finished")
    assert num_tries(run, 2, "many") == [2, 2]
    second = has_event(run.shard("many", 1), "started", 2)
    assert second is not None
    assert second.job_id.partition("_")[0] not in (array, once)
    assert run.job_file(0).read_text() == f"{array}:{second.job_id.partition('_')[0]}\n"
    ended = max(time for shard in (0, 1) for _, time in tries(run.shard("many", shard).path))
    assert tries(run.path)[0][1] > ended
    assert said(run) == ["submitted", "queued", "queued", "started", "stage_finished", "started", "container_ready",
                         "exited", "finished"]  # fmt: skip
    assert [event.attempt for event in read_events(run) if event.event == "started"] == [1, 2]


@pytest.mark.parametrize("runtime", ["charliecloud", "podman"])
def test_two_shards_on_one_node_do_not_collide_in_their_containers(boxed: Cluster, runtime: str) -> None:
    run = boxed.submit(SPEC, work(4), "array.shards=2", "container.image=xgen-cpu", runtime=runtime)
    wait_for_event(run, "finished")
    assert node_of(run, 0) == node_of(run, 1)
    assert num_tries(run, 2) == [1, 1]
    assert most_at_once(run, 2) == 2
    for shard in (0, 1):
        log = (run.shard("", shard).attempt_dir(1) / "out.log").read_text()
        assert log.startswith(f"0: shard {shard} of 2\n")
