"""The local executor goes on by either means, and waits between failures."""

from __future__ import annotations

import pytest

from tests.cluster_unit.conftest import Bench, events, exit_code, status, tell, wait_for, wait_for_steps
from tests.conftest import xgen


@pytest.mark.parametrize("by", ["requeue", "successor"])
def test_failures_in_a_row_wait_ever_longer_and_end(bench: Bench, by: str) -> None:
    backoff = {"first": "1s", "most": "1s"}
    run = bench.count(
        40, "--step", 0.02, "--crash-at", 3, restart={"max_failures": 3, "by": by, "backoff": backoff},
        resources={"gpus_per_node": 1},
    )  # fmt: skip
    assert exit_code(run) == 78, tell(run)
    assert [status(run, n) for n in (1, 2, 3)] == ["crashed"] * 3
    assert [(e.reason, e.action, e.seconds) for e in events(run, "requeued")] == [
        ("crashed", by, None), ("crashed", by, 1.0),
    ]  # fmt: skip
    if by == "successor":
        number = events(run, "started")[0].job_id
        assert events(run, "queued")[-1].reason == f"successor of job {number}: {number}"
        assert run.job_file(0).read_text() == f"{number}\n"
    started, exited = events(run, "started"), events(run, "exited")
    assert started[2].time - exited[1].time > 0.9


def test_a_shard_goes_on_by_a_successor(bench: Bench) -> None:
    run = bench.submit(
        ["sh", "-c", '[ "$XGEN_ATTEMPT" -gt 1 ] || exit 1'],
        restart={"max_failures": 2, "by": "successor"}, array={"shards": 2}, resources={"gpus_per_node": 1},
    )  # fmt: skip
    assert exit_code(run) == 0, tell(run)
    for number in (0, 1):
        shard = run.shard("", number)
        assert [status(shard, n) for n in (1, 2)] == ["crashed", "finished"]
    assert [e.event for e in events(run, "finished")] == ["finished"]


def test_a_budget_that_is_used_up_ends_the_run_until_a_person_gives_more(bench: Bench) -> None:
    """A GPU-second; the attempts take more."""
    restart = {"max_gpu_hours": 0.0002, "max_failures": 9, "backoff": {"first": "0s", "most": "0s"}}
    run = bench.submit(["sh", "-c", "sleep 1; exit 1"], restart=restart)
    assert exit_code(run) == 78, tell(run)
    assert run.last_attempt() == 1
    (failed,) = events(run, "failed")
    assert "GPU-hours are used, and restart.max_gpu_hours is 0.00" in (failed.reason or "")
    profile = str(bench.path / "local.yaml")
    said = " ".join(xgen("why", run.name, "--cluster", profile).stdout.split())
    assert f"then xgen resume {run.name} --set restart.max_gpu_hours=N" in said
    refused = xgen("resume", run.name, "--cluster", profile)
    assert refused.returncode == 2
    assert "write --set restart.max_gpu_hours=" in refused.stderr
    done = xgen("resume", run.name, "--cluster", profile, "--set", "restart.max_gpu_hours=1")
    assert done.returncode == 0, done.stderr
    wait_for(run, "started", 2)
    wait_for(run, "failed")


def test_a_resume_right_after_a_cancel_waits_for_its_end(bench: Bench) -> None:
    run = bench.count(200, "--step", 0.05, resources={"gpus_per_node": 1})
    profile = str(bench.path / "local.yaml")
    wait_for_steps(run, 3)
    assert xgen("cancel", run.name, "--cluster", profile).returncode == 0
    done = xgen("resume", run.name, "--cluster", profile)
    assert (done.returncode, "resumes as job" in done.stdout) == (0, True), done.stderr
    wait_for(run, "started", 2)


def test_why_of_a_refused_spec_says_to_correct_it(bench: Bench) -> None:
    run = bench.submit(["/no/such/program"], resources={"gpus_per_node": 1})
    assert exit_code(run) == 78, tell(run)
    said = " ".join(xgen("why", run.name, "--cluster", str(bench.path / "local.yaml")).stdout.split())
    assert f"do: correct the spec, then xgen submit SPEC; or xgen resume {run.name} --set KEY=VALUE" in said
