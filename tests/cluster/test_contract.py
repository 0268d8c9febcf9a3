"""The contract of signals, outcomes and requeue on a real SLURM, with a torch-free job under it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.conftest import (
    Cluster,
    has_event,
    outcome,
    sbatch,
    scontrol,
    steps,
    task_pids,
    wait_for_event,
    wait_for_steps,
    wait_until,
)
from tests.conftest import ROOT
from xgen.runs import RunDir, read_events

pytestmark = pytest.mark.cluster
COUNTER = ROOT / "tests/cluster/work/counter.yaml"


def counter(*arguments: object) -> str:
    """`--set` for a counter job with these arguments."""
    words = ", ".join(f'"{a}"' for a in ("python3", "tests/cluster/work/counter.py", *arguments))
    return f"command=[{words}]"


def assert_each_step_once(run: RunDir, total: int) -> None:
    done = [step for attempt in range(1, run.last_attempt() + 1) for step in steps(run, attempt)]
    assert sorted(done) == list(range(1, total + 1))


def test_preempted_job_saves_is_requeued_and_resumes_at_the_saved_step(cluster: Cluster) -> None:
    run = cluster.submit(COUNTER, counter(60))
    wait_for_steps(run, attempt=1)
    cluster.preempt()
    wait_for_event(run, "finished")
    assert outcome(run, 1).status == "stopped"
    assert has_event(run, "requeued").reason == "preempted"  # type: ignore[union-attr]
    assert outcome(run, 1).durable_step == steps(run, 1)[-1]
    assert_each_step_once(run, 60)
    assert cluster.status(run)["state"] == "finished"


def test_preemption_without_grace_loses_at_most_an_interval_and_is_no_failure(cluster: Cluster) -> None:
    scontrol("update", "partitionname=preempt", "GraceTime=0")
    try:
        # Saving takes longer than KillWait: only the periodic checkpoints protect this run.
        run = cluster.submit(COUNTER, counter(60, "--every", 10), "restart.max_failures=1")
        wait_for_steps(run, attempt=1, number=14)
        cluster.preempt()
        wait_for_event(run, "finished")
    finally:
        scontrol("update", "partitionname=preempt", "GraceTime=15")
    first = outcome(run, 1)
    assert first.status == "stopped"
    assert first.failures == 0
    assert first.durable_step >= 10
    assert steps(run, 2)[0] == first.durable_step + 1


def test_killed_without_grace_before_it_could_save_resumes_from_the_periodic_checkpoint(cluster: Cluster) -> None:
    scontrol("update", "partitionname=preempt", "GraceTime=0")
    try:
        run = cluster.submit(COUNTER, counter(40, "--every", 10, "--save", 2, "--stop-save", 60))
        wait_for_steps(run, attempt=1, number=12)
        cluster.preempt()
        wait_for_event(run, "finished")
    finally:
        scontrol("update", "partitionname=preempt", "GraceTime=15")
    assert outcome(run, 1).status == "stopped"
    assert outcome(run, 1).failures == 0
    assert steps(run, 2)[0] == outcome(run, 1).durable_step + 1


@pytest.mark.together
def test_time_limit_saves_and_goes_on_in_the_next_attempt(cluster: Cluster) -> None:
    # SLURM counts minutes and may signal up to a minute early: the first attempt lasts at least 30 s, of which a busy
    # machine takes 20 to start.
    run = cluster.submit(
        COUNTER, counter(600, "--step", 0.2), "resources.time=2m", "lead=85s", "resources.partition=gpu"
    )
    wait_for_steps(run, attempt=1, number=1)
    wait_for_event(run, "requeued", attempt=1, timeout=150)
    assert outcome(run, 1).status == "stopped"
    wait_for_event(run, "started", attempt=2)
    wait_for_steps(run, attempt=2, number=1)
    assert steps(run, 2)[0] == outcome(run, 1).durable_step + 1
    assert has_event(run, "requeued").reason == "time_limit"  # type: ignore[union-attr]


@pytest.mark.together
def test_rank_killed_is_a_failure_that_is_retried_from_the_last_checkpoint(cluster: Cluster) -> None:
    run = cluster.submit(COUNTER, counter(60, "--every", 10), "resources.partition=gpu", "resources.gpus_per_node=2")
    wait_for_steps(run, attempt=1, number=12)
    os.kill(task_pids(run)[2], signal.SIGKILL)
    wait_for_event(run, "finished")
    assert outcome(run, 1).status == "crashed"
    assert outcome(run, 1).failures == 1
    assert "without an outcome" in outcome(run, 1).reason
    assert steps(run, 2)[0] == outcome(run, 1).durable_step + 1


@pytest.mark.together
def test_crash_at_the_same_step_ends_after_max_failures_and_says_which_rank(cluster: Cluster) -> None:
    run = cluster.submit(
        COUNTER, counter(60, "--every", 10, "--crash-at", 5), "resources.partition=gpu", "restart.max_failures=2"
    )
    wait_for_event(run, "failed")
    assert run.last_attempt() == 2, "".join(e.to_line() for e in read_events(run))
    assert outcome(run, 2).failures == 2
    status = cluster.status(run)
    assert status["state"] == "failed"
    assert "rank 0: the command exited with 1" in str(status["reason"])


@pytest.mark.together
def test_batch_script_killed_is_found_and_settled_by_the_next_command(cluster: Cluster) -> None:
    run = cluster.submit(COUNTER, counter(60, "--every", 10), "resources.partition=gpu")
    wait_for_steps(run, attempt=1, number=12)
    os.kill(batch_pid(run), signal.SIGKILL)
    wait_until(lambda: cluster.status(run) and has_event(run, "settled"), 60, "the run is settled")
    wait_for_event(run, "finished")
    assert outcome(run, 1).status in ("lost", "stopped")  # the tasks may hear of it in time
    assert steps(run, 2)[0] == outcome(run, 1).durable_step + 1


def test_slurmd_killed_and_back_goes_on(cluster: Cluster) -> None:
    run = cluster.submit(COUNTER, counter(60), "resources.partition=gpu")
    wait_for_steps(run, attempt=1)
    node = has_event(run, "started").nodes.replace("n[", "n").split("-")[0].split(",")[0]  # type: ignore[union-attr]
    os.kill(int(pid_of_slurmd(node)), signal.SIGKILL)
    subprocess.run([ROOT / "slurm/dev/up"], check=True, timeout=120)
    wait_for_event(run, "finished")
    assert_each_step_once(run, 60)


def test_node_down_is_requeued_by_slurm_and_settled_by_the_next_attempt(cluster: Cluster) -> None:
    run = cluster.submit(COUNTER, counter(60, "--every", 10), "resources.partition=gpu")
    wait_for_steps(run, attempt=1, number=12)
    node = scontrol("show", "hostnames", str(has_event(run, "started").nodes)).split()[0]  # type: ignore[union-attr]
    try:
        scontrol("update", f"nodename={node}", "state=down", "reason=planted")
        wait_for_event(run, "started", attempt=2)
    finally:
        # The node may have come back by itself (ReturnToService), and then there is nothing to resume.
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=False, timeout=60)
    wait_for_event(run, "finished")
    assert outcome(run, 1).status in ("lost", "stopped")
    assert steps(run, 2)[0] == outcome(run, 1).durable_step + 1


@pytest.mark.together
def test_cancelled_by_scancel_saves_and_stays_cancelled(cluster: Cluster) -> None:
    run = cluster.submit(COUNTER, counter(300))
    wait_for_steps(run, attempt=1)
    job_id = has_event(run, "started").job_id  # type: ignore[union-attr]
    subprocess.run(["scancel", job_id], check=True, timeout=60)
    wait_for_event(run, "cancelled")
    assert outcome(run, 1).status == "cancelled"
    time.sleep(10)  # longer than cred_expire: a requeued job would be running again
    assert run.last_attempt() == 1
    assert cluster.status(run)["state"] == "cancelled"


@pytest.mark.together
def test_cancelled_by_xgen_stays_cancelled_until_it_is_resumed(cluster: Cluster) -> None:
    run = cluster.submit(COUNTER, counter(40))
    wait_for_steps(run, attempt=1)
    assert cluster.xgen("cancel", run.name).returncode == 0
    wait_for_event(run, "cancelled")
    wait_until(lambda: cluster.xgen("resume", run.name).returncode == 0, 60, "resume is accepted")
    wait_for_event(run, "finished")
    assert_each_step_once(run, 40)


@pytest.mark.together
def test_second_signal_during_the_save_changes_nothing(cluster: Cluster) -> None:
    run = cluster.submit(COUNTER, counter(60, "--save", 2), "resources.partition=gpu")
    wait_for_steps(run, attempt=1)
    job_id = has_event(run, "started").job_id  # type: ignore[union-attr]
    for _ in range(3):
        subprocess.run(["scancel", "--signal=USR2", job_id], check=True, timeout=60)
        time.sleep(0.6)
    wait_for_event(run, "finished")
    assert outcome(run, 1).status == "stopped"
    assert_each_step_once(run, 60)


@pytest.mark.together
def test_signal_before_the_handler_is_armed_is_a_restart_not_a_failure(cluster: Cluster) -> None:
    run = cluster.submit(
        COUNTER, counter(20, "--arm", 8), "resources.partition=gpu", "restart.max_failures=1", "resources.nodes=1"
    )
    wait_for_event(run, "container_ready")
    time.sleep(1)
    subprocess.run(["scancel", "--signal=USR2", has_event(run, "started").job_id], check=True, timeout=60)  # type: ignore[union-attr]
    wait_for_event(run, "finished")
    assert outcome(run, 1).status == "stopped"
    assert outcome(run, 1).failures == 0


@pytest.mark.together
def test_client_killed_right_after_sbatch_leaves_a_run_that_works(cluster: Cluster, tmp_path: Path) -> None:
    # A sbatch on PATH that submits, then kills the client that called it, before it can write a word.
    shim = tmp_path / "bin" / "sbatch"
    shim.parent.mkdir()
    shim.write_text(
        '#!/bin/sh\ncase "$*" in *--test-only*) exec /usr/bin/sbatch "$@";; esac\n'
        '/usr/bin/sbatch "$@" >/dev/null\nkill -9 $(ps -o ppid= -p $PPID)\n'  # our parent is the client's `timeout`
    )
    shim.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "xgen.cli.main", "submit", str(COUNTER), "--cluster", str(cluster.profile),
         "--id", "abcdef", "--set", counter(10), "--set", "resources.partition=gpu"],
        cwd=ROOT, env={**os.environ, "PATH": f"{shim.parent}:{os.environ['PATH']}"}, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    run = RunDir(cluster.run_root / "counter-abcdef")
    started = wait_for_event(run, "started")
    wait_for_event(run, "finished")
    assert has_event(run, "queued") is None  # the client did not live to say it
    assert cluster.status(run)["state"] == "finished"
    assert [e.job_id for e in read_events(run) if e.event == "queued"] == [started.job_id]  # the next command does
    again = cluster.xgen("submit", str(COUNTER), "--id", "abcdef")
    assert again.returncode == 2
    assert "exists" in again.stderr


@pytest.mark.together
def test_dry_run_prints_the_very_text_that_slurm_gets(cluster: Cluster) -> None:
    arguments = ("submit", str(COUNTER), "--id", "abcdef", "--set", counter(10))
    printed = cluster.xgen(*arguments, "--dry-run").stdout
    assert not cluster.run_root.exists()
    assert cluster.xgen(*arguments).returncode == 0
    job_id = read_events(RunDir(cluster.run_root / "counter-abcdef"))[1].job_id
    assert scontrol("write", "batch_script", job_id, "-") == printed


@pytest.mark.together
def test_what_the_scheduler_refuses_is_said_in_its_words_and_leaves_nothing(cluster: Cluster) -> None:
    done = cluster.xgen("submit", str(COUNTER), "--set", "resources.nodes=9")
    assert done.returncode == 2
    assert "sbatch --test-only" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(cluster.run_root.glob("*")) if cluster.run_root.exists() else True


@pytest.mark.together
def test_requeue_that_is_disabled_becomes_one_successor(cluster: Cluster) -> None:
    run = cluster.submit(COUNTER, counter(60))
    wait_for_steps(run, attempt=1)
    job_id = has_event(run, "started").job_id  # type: ignore[union-attr]
    scontrol("update", f"jobid={job_id}", "requeue=0")
    subprocess.run(["scancel", "--signal=USR2", job_id], check=True, timeout=60)
    wait_for_event(run, "finished")
    assert run.last_attempt() == 2
    assert has_event(run, "started", 2).job_id != job_id  # type: ignore[union-attr]
    assert_each_step_once(run, 60)


@pytest.mark.together
def test_two_jobs_of_one_run_never_run_at_once(cluster: Cluster) -> None:
    run = cluster.submit(COUNTER, counter(40), "resources.partition=gpu")
    wait_for_steps(run, attempt=1)
    sbatch("--partition=gpu", "--nodes=1", str(run.attempt_dir(1) / "sbatch.sh"))
    wait_for_event(run, "finished")
    assert run.last_attempt() == 1
    assert_each_step_once(run, 40)


def batch_pid(run: RunDir) -> int:
    """Process id of the batch script: the bash whose script stands in slurmd's spool and that holds the lock. Its
    subshells look the same, began later, and may have smaller numbers."""
    job_id = has_event(run, "started").job_id  # type: ignore[union-attr]
    found = subprocess.run(
        ["pgrep", "-o", "-f", f"job0*{job_id}/slurm_script"], capture_output=True, text=True, timeout=10, check=True
    )
    return int(found.stdout)


def pid_of_slurmd(node: str) -> str:
    found = subprocess.run(
        ["pgrep", "-f", f"slurmd .*-N {node}$"], capture_output=True, text=True, timeout=10, check=True
    )
    return found.stdout.split()[0]
