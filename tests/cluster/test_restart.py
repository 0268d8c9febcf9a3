"""The means of a restart on a real SLURM: a successor, and what nobody decided."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import (
    Cluster,
    empty_the_queue,
    has_event,
    outcome,
    scontrol,
    steps,
    task_pids,
    wait_for_event,
    wait_for_steps,
    wait_until,
)
from tests.cluster.test_contract import COUNTER, assert_each_step_once, batch_pid, counter
from xgen.cluster import slurm
from xgen.cluster.prepare import prepare
from xgen.cluster.submit import submit
from xgen.runs import RunDir, read_events
from xgen.spec import Command, Resources, load_job, load_profile

pytestmark = pytest.mark.cluster


def jobs_in_queue(run: RunDir) -> list[str]:
    """Of the run and its guards."""
    return [row.job_id for row in slurm.queue() if row.name in (run.name, f"{run.name}.guard")]


def jobs_that_started(run: RunDir) -> list[str]:
    return [event.job_id for event in read_events(run) if event.event == "started"]


def test_a_preempted_job_goes_on_as_a_successor_and_stays_one_run(cluster: Cluster) -> None:
    run = cluster.submit(COUNTER, counter(60), "restart.by=successor")
    wait_for_steps(run, attempt=1)
    cluster.preempt()
    wait_for_event(run, "finished")
    assert (outcome(run, 1).status, outcome(run, 2).status) == ("stopped", "finished")
    assert wait_for_event(run, "requeued").action == "successor"
    assert len({event.job_id for event in read_events(run) if event.event == "started"}) == 2
    assert_each_step_once(run, 60)


@contextmanager
def site_that_cancels(cluster: Cluster) -> Iterator[None]:
    """SLURM cancels what it preempts in two partitions, of which one gives no grace."""
    conf = Path("/etc/slurm/slurm.conf").resolve()
    was, profile = conf.read_text(), yaml.safe_load(cluster.profile.read_text())
    lines = []
    for name, grace in (("cancels", 15), ("cancels-now", 0)):
        profile["partitions"][name] = {"max_time": "1d", "preemptible": True, "grace": f"{grace}s"}
        lines.append(
            f"PartitionName={name} Nodes=n[1-4] MaxTime=1-0 State=UP PriorityTier=1 PreemptMode=CANCEL "
            f"GraceTime={grace} DefMemPerCPU=256\n"
        )
    cluster.profile.write_text(yaml.safe_dump(profile))
    try:
        conf.write_text(was + "".join(lines))
        scontrol("reconfigure")
        yield
    finally:
        try:
            empty_the_queue()
        finally:
            conf.write_text(was)
            scontrol("reconfigure")


def test_where_slurm_cancels_what_it_preempts_or_refuses_the_requeue_a_successor_goes_on(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ("resources.nodes=1", "resources.gpus_per_node=1", "resources.memory=7GB")  # two a node
    with site_that_cancels(cluster):
        runs = {
            (partition, by): cluster.submit(
                COUNTER, counter(5000), *one, f"resources.partition={partition}", f"restart.by={by}"
            )
            for partition, by in (("cancels", "requeue"), ("cancels-now", "requeue"), ("cancels-now", "successor"))
        }
        # It cannot save within KillWait, and its batch script dies with it.
        late = cluster.submit(
            COUNTER, counter(5000, "--every", 5, "--stop-save", 60), *one, "resources.partition=cancels-now",
            "restart.guard=true", "restart.max_failures=1",
        )  # fmt: skip
        monkeypatch.setenv("SBATCH_NO_REQUEUE", "1")  # for which SLURM cancels it too
        runs["preempt", "no requeue"] = cluster.submit(COUNTER, counter(5000), *one)
        for run in (*runs.values(), late):
            wait_for_steps(run, attempt=1, number=6)
        cluster.preempt()
        for run in (*runs.values(), late):
            wait_for_steps(run, attempt=2, number=1, timeout=120)
            assert (outcome(run, 1).status, outcome(run, 1).failures) == ("stopped", 0)
            assert steps(run, 2)[0] == outcome(run, 1).durable_step + 1
            assert run.last_attempt() == 2
            expected = 1 + (run is late)  # a predecessor takes its time to end
            wait_until(lambda: len(jobs_in_queue(run)) == expected, 60, f"{expected} jobs of {run.name}")  # noqa: B023
        for run in runs.values():
            assert wait_for_event(run, "requeued").reason == "preempted"
            assert outcome(run, 1).durable_step == steps(run, 1)[-1]
        # While its grace lasts SLURM takes a job back all the same.
        assert [len(set(jobs_that_started(run))) for run in runs.values()] == [1, 2, 2, 2]
        assert str(wait_for_event(late, "settled", 1).action).startswith("guard job ")


@pytest.mark.together
def test_a_batch_script_that_is_killed_is_settled_by_the_guard_and_by_nobody_else(cluster: Cluster) -> None:
    run = cluster.submit(COUNTER, counter(60, "--every", 5), "restart.guard=true", "restart.max_failures=2")
    wait_until(run.checkpoint_steps, 60, "a checkpoint")
    guard = (run.path / "jobs/0.guard").read_text()
    os.kill(batch_pid(run), signal.SIGKILL)
    wait_for_event(run, "settled", 1)
    cluster.status(run)  # which would settle it too
    wait_for_event(run, "finished")
    settled = [event for event in read_events(run) if event.event == "settled"]
    assert [event.action for event in settled] == [f"guard job {guard.strip()}"]
    # SLURM ends the tasks with SIGTERM; they may hear of it in time.
    assert outcome(run, 1).status in ("lost", "stopped")
    assert (outcome(run, 2).status, run.last_attempt()) == ("finished", 2)
    assert steps(run, 2)[0] > 1
    assert (run.path / "jobs/0.guard").read_text() != guard


def test_a_guard_that_began_because_slurm_had_lost_the_node_leaves_the_next_job_guarded(cluster: Cluster) -> None:
    run = cluster.submit(COUNTER, counter(5000), "restart.guard=true", "resources.nodes=1", "resources.partition=gpu")
    wait_for_steps(run, attempt=1)
    first = has_event(run, "started")
    assert first is not None
    scontrol("update", f"jobid={first.job_id}", "requeue=0")
    try:
        scontrol("update", f"nodename={first.nodes}", "state=down", "reason=planted")
        wait_for_steps(run, attempt=2, number=1, timeout=120)
    finally:
        subprocess.run(["scontrol", "update", f"nodename={first.nodes}", "state=resume"], check=False, timeout=60)
    second = jobs_that_started(run)[1]

    def guards() -> bool:
        """The first guard, where it had not started yet, or another."""
        return f"Dependency=afternotok:{second}(" in scontrol(
            "show", "job", run.job_file(0).with_suffix(".guard").read_text().strip()
        )

    wait_until(guards, 30, f"a guard of job {second}")
    assert has_event(run, "settled") is None


class Staged(Command):
    """The same command in three jobs, one after the other."""

    @property
    def jobs(self) -> tuple[tuple[str, Resources], ...]:
        return ("one", self.resources), ("two", self.resources), ("three", self.resources)


def kill_everything(run: RunDir, attempt: int) -> None:
    """The batch script, srun and what both have started, and the tasks."""
    job = wait_for_event(run, "started", attempt).job_id
    found = subprocess.run(["pgrep", "-f", f"job0*{job}/slurm_script"], capture_output=True, text=True, timeout=10)
    for pid in [*map(int, found.stdout.split()), *task_pids(run).values()]:
        with suppress(ProcessLookupError):  # slurmstepd ends what is left
            os.kill(pid, signal.SIGKILL)


@pytest.mark.together
def test_the_guards_of_a_run_with_stages_bring_back_what_was_killed_and_all_that_waited_for_it(
    cluster: Cluster,
) -> None:
    settings = (counter(60, "--every", 5), "restart.guard=true", "restart.max_failures=5", "restart.backoff.first=1s",
                "resources.nodes=1", "resources.partition=gpu")  # fmt: skip
    loaded = load_job(COUNTER, settings)
    staged = Staged.model_construct(**dict(loaded.job))
    prepared = prepare(replace(loaded, job=staged), "dev", load_profile(cluster.profile))
    submit(prepared)
    run = prepared.run
    for attempt in (1, 2):  # SLURM removes the later stages and their guards each time
        wait_until(lambda: steps(run, attempt)[4:], 90, f"steps of attempt {attempt}")  # noqa: B023
        kill_everything(run, attempt)
    wait_for_event(run, "finished", timeout=150)
    events = read_events(run)
    settled = [e for e in events if e.event == "settled"]
    assert [e.attempt for e in settled] == [1, 2]
    assert all(str(e.action).startswith("guard job ") for e in settled)
    assert [e.stage for e in events if e.event == "started"] == ["one", "one", "one", "two", "three"]
    assert [e.stage for e in events if e.event == "stage_finished"] == ["one", "two"]
    assert len(set(jobs_that_started(run))) == 5
    assert [steps(run, attempt)[0] for attempt in (1, 2, 3)] == [
        1, outcome(run, 1).durable_step + 1, outcome(run, 2).durable_step + 1
    ]  # fmt: skip
    wait_until(lambda: not jobs_in_queue(run), 60, "an end of the guards")
