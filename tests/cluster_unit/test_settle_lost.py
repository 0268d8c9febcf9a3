"""Jobs that the controller forgot before they began, by the kinds of runs that wait."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from xgen.cluster import settle as part
from xgen.cluster.slurm import QueueRow
from xgen.metrics.fleet import settling
from xgen.runs import AttemptOutcome, EventWriter, RunDir, read_events, write_atomic
from xgen.spec import Command, Partition, Profile, Resources


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """SLURM does not know its job 9 any more, and its accounting has no end of it."""
    for name, text in (
        ("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"),
        ("sacct", "echo PENDING"),
        ("squeue", "true"),
    ):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    made = RunDir(tmp_path / "demo-abc234")
    made.create()
    (made.path / "jobs").mkdir()
    made.job_file(0).write_text("9\n")
    monkeypatch.setattr(part, "resubmit", lambda *_, **__: ["10"])
    return made


class Stages(Command):
    """Work in so many jobs, one after the other."""

    number: int = 1

    @property
    def jobs(self) -> tuple[tuple[str, Resources], ...]:
        return tuple((f"part{number}", self.resources) for number in range(self.number))


def stages(number: int) -> Stages:
    resources = Resources.model_validate({"time": "1h"})
    return Stages(kind="command", name="demo", command=["w"], resources=resources, number=number)


def settled(run: RunDir, **keys: Any) -> str | None:
    spec = {"kind": "command", "name": "demo", "command": ["w"], "resources": Resources.model_validate({"time": "1h"})}
    job = Command.model_validate(spec | keys)
    return part._settle(run, job, Profile(run_root=str(run.path.parent), partitions={"gpu": Partition()}), "a test", 0)


def test_an_array_of_which_nothing_has_begun_is_submitted_again(run: RunDir) -> None:
    assert settled(run, array={"shards": 4}) == f"{run.name} had lost its job before it began; it goes on as job 10"


def test_one_whose_shards_have_ended_is_left_to_a_person(run: RunDir) -> None:
    """Of those that have not begun nobody says whether a person took them away."""
    for number in (0, 1):
        shard = run.shard("", number)
        shard.path.mkdir(parents=True)
        (shard.path.parent / ".finished").mkdir(exist_ok=True)
        (shard.path.parent / ".finished" / str(number)).touch()
    assert settled(run, array={"shards": 4}) is None
    assert read_events(run) == []


def test_a_run_that_begins_in_a_later_stage_has_the_job_of_that_one(run: RunDir) -> None:
    """A fork of a training: a checkpoint says where it begins."""
    run.job_file(0).rename(run.job_file(2))
    assert part._stage(run, stages(3)) == 2


def test_what_stays_lost_is_not_counted_as_settled(run: RunDir) -> None:
    run.attempt_dir(1).mkdir()
    outcome = AttemptOutcome(status="cancelled", time=1)
    write_atomic(run.attempt_dir(1) / "outcome.json", outcome.model_dump_json())
    assert settled(run) is None  # a person resumed it, and the mark of that is gone


def test_the_exporter_lets_go_what_it_has_seen_on_hold(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a step of a pipeline that has never begun."""
    row = QueueRow("9", run.name, "PENDING", "launch failed requeued held", "gpu", "", "N/A", "0")
    seen = []
    monkeypatch.setattr(settling, "settle", lambda run, view, who: seen.append((run.name, view.jobs, who)))
    (metric,) = settling.Settling(run.path.parent, dict, lambda: {run.name: row}, acts=True).poll()
    assert seen == [(run.name, {run.name: row}, "exporter")]
    assert metric.samples[0].value == 0


def test_a_job_on_hold_is_let_go_a_few_times_for_each_time_that_a_person_does(run: RunDir) -> None:
    (run.path.parent / "bin/scontrol").write_text("#!/bin/sh\n")
    job = stages(1)
    limit = job.restart.max_failures
    for _ in range(limit):
        assert "it is released" in part._let_go(run, job, "9", "a test")
    with pytest.raises(part.NotSettledError, match=f"{limit} times in a row"):
        part._let_go(run, job, "9", "a test")
    EventWriter(run, "client", 0, "9").write("released")
    assert "it is released" in part._let_go(run, job, "9", "a test")
    assert "it is released" in part._let_go(run, job, "9_3", "a test")  # another shard's
