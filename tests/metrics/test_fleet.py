"""Runs as the exporter serves them: from their own files, and from the queue's last answer."""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path

import pytest

from tests.metrics.fake_slurm import DOWN, FakeSlurm, slurm, value
from tests.metrics.fleet_runs import COMMAND, PRETRAIN, FleetRun, fleet, polled, root, says, state
from xgen.metrics.exporter import CollectorError
from xgen.runs import RunDir, read_events, replay

__all__ = ["root", "slurm"]
TRAINING_ONLY = {
    "xgen_run_highest_step", "xgen_run_planned_steps", "xgen_run_planned_tokens", "xgen_run_tokens_total",
    "xgen_run_resumed_step", "xgen_run_lost_steps_total", "xgen_run_checkpoint_durable_step",
    "xgen_run_goodput_ratio", "xgen_run_effective_time_ratio",
}  # fmt: skip


def test_a_training_over_two_attempts(root: Path, slurm: FakeSlurm) -> None:
    now = time.time()
    run = FleetRun(root, "tiny-k3f9ab", PRETRAIN, "81", "82")
    run.told(now - 1000, "submitted", 0)
    end = run.trained(now - 900, 30)
    run.told(end + 1, "checkpoint_begin", step=30)
    run.told(end + 3, "checkpoint_durable", step=30)
    run.told(end + 4, "progress", step=35)
    run.told(end + 5, "exited")
    run.told(end + 5, "requeued", reason="crashed")
    end = run.trained(now - 145, 20, attempt=2, resumed=30)
    series = polled(fleet(root, says(slurm, "81 RUNNING", "82 PENDING Dependency")))
    of = {"run": "tiny-k3f9ab"}
    told = {name: value(series, f"xgen_run_{name}", **of) for name in (
        "gpus", "attempts", "highest_step", "planned_steps", "planned_tokens", "tokens_total", "resumed_step",
        "lost_steps_total", "checkpoint_durable_step", "lost", "last_event_timestamp_seconds",
    )}  # fmt: skip
    assert told == {
        "gpus": 16, "attempts": 2, "highest_step": 50, "planned_steps": 110, "planned_tokens": 1_200_000,
        "tokens_total": 500_000, "resumed_step": 30, "lost_steps_total": 5, "checkpoint_durable_step": 30, "lost": 0,
        "last_event_timestamp_seconds": pytest.approx(end),
    }  # fmt: skip
    assert state(series, "tiny-k3f9ab") == ["running"]
    [about] = [dict(labels) for name, labels in series if name == "xgen_run_info"]
    assert about == {
        "run": "tiny-k3f9ab", "name": "tiny", "kind": "pretrain", "user": pwd.getpwuid(os.getuid()).pw_name,
        "project": "ml", "cluster": "atlas", "partition": "main", "stage": "broad",
    }  # fmt: skip
    assert value(series, "xgen_run_restarts_total", reason="crashed", **of) == 1
    phases = {dict(labels)["phase"]: v for (name, labels), v in series.items() if name == "xgen_run_time_seconds_total"}
    whole = replay(read_events(run.dir)).totals(end)
    assert phases == pytest.approx(whole)
    # 16 GPUs from the start of each attempt to its end, or until now.
    held = sum(whole.values()) - whole["queued"]
    assert value(series, "xgen_run_gpu_seconds_total", **of) == pytest.approx(16 * held)
    wall = sum(whole.values())
    assert value(series, "xgen_run_effective_time_ratio", **of) == pytest.approx(whole["train"] / wall)
    assert value(series, "xgen_run_goodput_ratio", **of) == pytest.approx(whole["train"] / held)


def test_the_tokens_of_a_later_stage_count_by_its_own_batch(root: Path, slurm: FakeSlurm) -> None:
    now = time.time()
    run = FleetRun(root, "tiny-k3f9ab", PRETRAIN, "81", "82")
    run.trained(now - 900, 100)
    run.told(now - 300, "stage_finished", stage="broad")
    run.told(now - 200, "started", 2, stage="anneal")
    run.told(now - 150, "first_step", 2, step=101)
    run.told(now - 1, "progress", 2, step=104)
    series = polled(fleet(root, says(slurm, "82 RUNNING")))
    assert value(series, "xgen_run_tokens_total", run="tiny-k3f9ab") == 1_000_000 + 4 * 20_000
    assert value(series, "xgen_run_gpus", run="tiny-k3f9ab") == 8
    [stage] = [dict(labels)["stage"] for name, labels in series if name == "xgen_run_info"]
    assert stage == "anneal"


def test_a_hang_is_counted_when_it_is_over(root: Path, slurm: FakeSlurm) -> None:
    now = time.time()
    run = FleetRun(root, "tiny-k3f9ab", PRETRAIN, "81")
    run.told(now - 1000, "started")
    run.told(now - 900, "first_step", step=1)
    run.told(now - 800, "progress", step=20)
    runs = fleet(root, says(slurm, "81 RUNNING"))
    key = {"run": "tiny-k3f9ab", "phase": "train"}
    before = polled(runs)
    assert value(before, "xgen_run_time_seconds_total", **key) == pytest.approx(100)
    assert value(before, "xgen_run_gpu_seconds_total", run="tiny-k3f9ab") == pytest.approx(16 * 200)
    run.told(now - 5, "progress", step=21, data_wait=700.0)
    after = polled(runs)
    assert value(after, "xgen_run_time_seconds_total", **key) == pytest.approx(195)
    waited = value(after, "xgen_run_time_seconds_total", run="tiny-k3f9ab", phase="data_wait")
    assert waited == pytest.approx(700)
    assert value(after, "xgen_run_gpu_seconds_total", run="tiny-k3f9ab") == pytest.approx(16 * 995)


@pytest.mark.parametrize("end", ["start", "restore_begin", "checkpoint_begin", "stopping"])
def test_no_counter_falls_when_the_exporter_starts_again_after_a_run_was_lost(
    root: Path, slurm: FakeSlurm, end: str
) -> None:
    now = time.time()
    run = FleetRun(root, "tiny-k3f9ab", PRETRAIN, "81")
    run.told(now - 1000, "submitted", 0)
    last = run.trained(now - 900, 20)
    if end == "start":
        run.told(last + 1, "requeued", reason="preempted")
        run.told(last + 60, "started", 2)
    else:
        run.told(last + 60, end, step=20)
    queue = says(slurm, "81 RUNNING")  # its node is gone, and SLURM does not know yet
    runs = fleet(root, queue)
    polled(runs)
    says(slurm, queue=queue)
    before, again = polled(runs), polled(fleet(root, queue))
    assert state(again, "tiny-k3f9ab") == ["lost"]
    counted = [key for key in before if key[0].endswith("_seconds_total")]
    assert len(counted) == 12
    assert {key: again[key] for key in counted} == pytest.approx({key: before[key] for key in counted})


def test_work_without_steps_has_neither_steps_nor_a_ratio(root: Path, slurm: FakeSlurm) -> None:
    now = time.time()
    run = FleetRun(root, "hello-abc234", COMMAND, "81")
    run.told(now - 100, "submitted", 0)
    run.told(now - 40, "started")
    series = polled(fleet(root, says(slurm, "81 RUNNING")))
    assert not TRAINING_ONLY & {name for name, _ in series}
    phases = {dict(labels)["phase"]: v for (name, labels), v in series.items() if name == "xgen_run_time_seconds_total"}
    assert phases == {"queued": pytest.approx(60), "work": pytest.approx(40, abs=1), "stop": 0}
    [where] = [dict(labels)["partition"] for name, labels in series if name == "xgen_run_info"]
    assert where == "cpu"


@pytest.mark.parametrize(
    ("told", "job", "expected", "lost"),
    [
        (["submitted", "queued"], "81 PENDING Priority", "queued", 0),
        (["submitted", "queued", "started"], "81 RUNNING", "running", 0),
        (["submitted", "queued", "started", "stopping"], "81 RUNNING", "stopping", 0),
        (["started", "exited", "requeued"], "81 PENDING BeginTime", "queued", 0),
        (["started", "exited", "finished"], "", "finished", 0),
        (["started", "exited", "finished"], "81 COMPLETED", "finished", 0),
        (["started", "exited", "failed"], "", "failed", 0),
        (["started", "exited", "cancelled"], "", "cancelled", 0),
        (["started"], "", "lost", 1),
        (["started"], "81 NODE_FAIL", "lost", 1),  # squeue shows it for some minutes
        (["started", "exited"], "99 RUNNING", "lost", 1),  # another's job
    ],
)
def test_the_state_is_that_of_xgen_status(
    root: Path, slurm: FakeSlurm, told: list[str], job: str, expected: str, lost: int
) -> None:
    run = FleetRun(root, "tiny-k3f9ab", PRETRAIN, "81")
    for number, event in enumerate(told):
        run.told(time.time() - 100 + number, event)
    series = polled(fleet(root, says(slurm, *filter(None, [job]))))
    assert state(series, "tiny-k3f9ab") == [expected]
    assert value(series, "xgen_run_lost", run="tiny-k3f9ab") == lost


def test_a_run_that_a_person_cancels_is_stopping_until_its_job_has_ended(root: Path, slurm: FakeSlurm) -> None:
    run, now = FleetRun(root, "tiny-k3f9ab", PRETRAIN, "81"), time.time()
    run.trained(now - 900, 3)
    run.told(now - 100, "cancelled", writer="client")
    run.dir.cancelled_file.touch()
    queue = says(slurm, "81 RUNNING")
    runs = fleet(root, queue)
    assert state(polled(runs), "tiny-k3f9ab") == ["stopping"]
    says(slurm, queue=queue)
    assert state(polled(runs), "tiny-k3f9ab") == ["cancelled"]


def test_a_run_is_not_lost_where_the_queue_was_asked_before_it_was_submitted(root: Path, slurm: FakeSlurm) -> None:
    queue = says(slurm)
    run = FleetRun(root, "tiny-k3f9ab", PRETRAIN, "81")
    run.told(time.time(), "queued", 0)
    series = polled(fleet(root, queue))
    assert state(series, "tiny-k3f9ab") == ["queued"]
    assert value(series, "xgen_run_lost", run="tiny-k3f9ab") is None


def test_without_the_scheduler_it_is_what_it_was_told_and_nothing_is_lost_that_was_not(
    root: Path, slurm: FakeSlurm
) -> None:
    before = time.time() - 100
    for name, events in (("running-k3f9ab", ["started"]), ("lost-k3f9ab", ["started"]), ("queued-k3f9ab", ["queued"])):
        run = FleetRun(root, name, PRETRAIN, {"running-k3f9ab": "81", "lost-k3f9ab": "82", "queued-k3f9ab": "83"}[name])
        for event in events:
            run.told(before, event)
    queue = says(slurm, "81 RUNNING", "83 PENDING Priority")
    runs = fleet(root, queue)
    assert state(polled(runs), "lost-k3f9ab") == ["lost"]
    slurm.say("squeue", DOWN)
    with pytest.raises(CollectorError):
        list(queue.poll())
    assert queue.answer is not None
    assert value(polled(runs), "xgen_run_lost", run="lost-k3f9ab") == 1  # the last answer is fresh enough
    queue.answer = None
    series = polled(runs)
    states = {name: state(series, name) for name in ("running-k3f9ab", "lost-k3f9ab", "queued-k3f9ab")}
    assert states == {"running-k3f9ab": ["running"], "lost-k3f9ab": ["lost"], "queued-k3f9ab": ["queued"]}
    assert [dict(labels)["run"] for name, labels in series if name == "xgen_run_lost"] == ["lost-k3f9ab"]


def test_nothing_is_lost_where_the_jobs_of_others_are_hidden(
    root: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = FleetRun(root, "tiny-k3f9ab", PRETRAIN, "81")
    run.told(time.time() - 100, "started")
    monkeypatch.setattr(os, "getuid", lambda: 65534)
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    runs = fleet(root, says(slurm, "99 RUNNING", user="nobody"))
    assert value(polled(runs), "xgen_run_lost", run="tiny-k3f9ab") is None
    runs = fleet(root, says(slurm, "99 RUNNING", user="ann"))
    assert value(polled(runs), "xgen_run_lost", run="tiny-k3f9ab") == 1


def test_the_shards_of_a_job_array_and_the_gpus_that_they_hold(root: Path, slurm: FakeSlurm) -> None:
    now = time.time()
    spec = COMMAND | {"array": {"shards": 5}, "resources": {"gpus_per_node": 2, "time": "1h"}}
    run = FleetRun(root, "hello-abc234", spec, "81")
    run.told(now - 100, "started")
    for number, events in {
        0: [(100, "started"), (40, "exited"), (40, "finished")],
        1: [(100, "started"), (70, "exited"), (70, "requeued"), (50, "started"), (10, "exited"), (10, "failed")],
        2: [(20, "started")],
    }.items():
        shard = FleetRun.__new__(FleetRun)
        shard.dir = run.dir.shard("", number)
        shard.dir.create()
        for index, (ago, event) in enumerate(events):
            shard.told(now - ago, event, 1 + (index > 2))
    for marker, number in ((".finished", 0), (".given-up", 1)):
        folder = RunDir(run.dir.shards_dir / "array").path / marker
        folder.mkdir()
        (folder / str(number)).touch()
    runs = fleet(root, says(slurm, "81_2 RUNNING", "81_[3-4] PENDING Priority"))
    series = polled(runs)
    counts = {dict(labels)["state"]: number for (name, labels), number in series.items() if name == "xgen_run_shards"}
    assert counts == {"finished": 1, "given_up": 1, "running": 1, "waiting": 2}
    assert value(series, "xgen_run_gpus", run="hello-abc234") == 2
    held = value(series, "xgen_run_gpu_seconds_total", run="hello-abc234")
    assert held == pytest.approx(2 * (60 + 30 + 40 + 20), abs=4)
    later = value(polled(runs), "xgen_run_gpu_seconds_total", run="hello-abc234")
    assert held is not None
    assert later is not None
    assert later >= held


def test_servers_beside_a_trainer_hold_their_gpus_too(root: Path, slurm: FakeSlurm) -> None:
    now = time.time()
    servers = {"array": {"shards": 3}, "resources": {"gpus_per_node": 4, "time": "1h"}}
    spec = {
        "kind": "rl", "name": "hello", "model": "tiny", "init": "base-abc234",
        "resources": {"gpus_per_node": 8, "time": "1h"},
        "prompts": {"tokenizer": "/t", "sources": {"math": "/m.jsonl"}, "max_tokens": 64},
        "rollout": {"prompts": 4, "max_tokens": 64, "servers": servers},
        "rewards": {"math": {"kind": "math"}},
        "train": {"steps": 10, "sequences": 16, "seq_len": "1k", "lr": {"peak": 1e-6}},
    }  # fmt: skip
    run = FleetRun(root, "hello-abc234", spec, "81", "82")
    run.told(now - 100, "started", stage="train")
    run.told(now - 1, "first_step", step=1)
    for number in (0, 1):
        shard = FleetRun.__new__(FleetRun)
        shard.dir = run.dir.shard("rollout", number)
        shard.dir.create()
        shard.told(now - 60, "started")
    series = polled(fleet(root, says(slurm, "82 RUNNING", "81_0 RUNNING", "81_1 RUNNING", "81_2 PENDING Priority")))
    assert state(series, "hello-abc234") == ["running"]
    assert value(series, "xgen_run_gpus", run="hello-abc234") == 8 + 2 * 4
    held = value(series, "xgen_run_gpu_seconds_total", run="hello-abc234")
    assert held == pytest.approx(8 * 100 + 2 * 4 * 60, abs=40)
