"""`xgen fork`: what carries over, what is refused before anything is written, and that the fork stands on its own."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import PROFILE, TRAIN, Project
from tests.cluster_unit.conftest import wait_until
from tests.train.folders import damage, save
from xgen.cli import fork
from xgen.cluster import local
from xgen.runs import RunDir, read_events
from xgen.runs.origin import Origin, forks_of, read_origin
from xgen.spec import dump, load_job
from xgen.train.ckpt_admin import check, survey

NAME = "train-abc234"


@pytest.fixture
def parent(project: Project) -> Iterator[RunDir]:
    """A run on the local executor with checkpoints of steps 25 and 50; its trainer is replaced by `true`."""
    made = RunDir(project.runs / NAME)
    made.create()
    made.spec_file.write_text(dump(load_job(project.path / "train.yaml").job))
    profile = PROFILE.format(scheduler="local", request="none").replace(": runs", f": {project.runs}")
    made.profile_file.write_text(profile + f"container: {{python: {shutil.which('true')}}}\n")
    for step in (25, 50):
        save(made, step)
    yield made
    for run in new_runs(project):
        local.send(run, signal.SIGTERM)
        wait_until(lambda run=run: not local.is_alive(run), lambda run=run: f"the end of {run.name}")


def run_fork(project: Project, *arguments: str) -> tuple[int, str, list[str]]:
    done = project.xgen("fork", *arguments)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr.splitlines()


def new_runs(project: Project) -> list[RunDir]:
    return [RunDir(path) for path in project.runs.glob("*-??????") if path.name != NAME]


def path_of(run: RunDir) -> str:
    return str(run.path)


def test_a_fork_has_the_parent_s_spec_with_changes_and_its_checkpoint(project: Project, parent: RunDir) -> None:
    settings = ("--set", "stages.0.lr.peak=1e-3", "--set", "lead=31s", "--name", "other")
    done = project.xgen("fork", f"{path_of(parent)}@25", *settings, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    (run,) = new_runs(project)
    assert (facts["run"], facts["parent"], facts["step"], facts["checkpoint"]) == (run.name, NAME, 25, "linked")
    assert facts["changed"] == {"lead": "31s", "stages[0].lr.peak": 0.001}
    assert run.name.startswith("other-")
    origin = json.loads((run.path / "origin.json").read_text())
    assert (origin["parent"], origin["step"], origin["data_changed"]) == (NAME, 25, False)
    assert run.checkpoint_steps() == [25]
    shutil.rmtree(parent.checkpoints_dir)
    assert [c.state for c in check(survey(run))] == ["verified"]
    line = f"forked from {NAME} at step 25, changed: lead=31s, stages[0].lr.peak=0.001"
    assert f"  {line}\n" in project.xgen("status", run.name, "--cluster", "local").stdout
    assert project.xgen("checkpoints", path_of(run)).stdout.startswith(f"{run.name} was {line}\n")
    assert forks_of(parent) == {25: [run.name]}


def test_the_newest_is_taken_and_the_parent_s_table_names_the_fork(project: Project, parent: RunDir) -> None:
    code, said, _ = run_fork(project, path_of(parent))
    (run,) = new_runs(project)
    assert (code, said.splitlines()[:2]) == (
        0,
        [f"{run.name}  forked from {NAME} at step 50, checkpoint linked", "  changed   nothing"],
    )
    table = project.xgen("checkpoints", path_of(parent)).stdout.splitlines()
    assert table[2].endswith(f"complete  last 2, forked by {run.name}")


def test_a_dry_run_verifies_prints_the_script_and_leaves_nothing(project: Project, parent: RunDir) -> None:
    before = project.files()
    code, script, said = run_fork(project, path_of(parent), "--set", "seed=3", "--dry-run")
    assert (code, script.startswith("#!/bin/bash\n")) == (0, True)
    assert said[0].endswith(f"would be forked from {NAME} at step 50: seed=3")
    assert said[1:] == [f"note: {fork.DATA_NOTE}"]
    assert project.files() == before


@pytest.mark.parametrize(
    ("setting", "changes_data"),
    [("seed=7", True), ("stages.0.seq_len=128", True), ("data.workers=3", False), ("stages.0.rope_theta=1e6", False)],
)
def test_another_data_order_is_told_to_the_trainer(
    project: Project, parent: RunDir, setting: str, changes_data: bool
) -> None:
    done = project.xgen("fork", path_of(parent), "--set", setting, "--json", "--dry-run")
    assert json.loads(done.stdout)["data_changed"] is changes_data


def test_a_fork_of_a_fork_that_has_not_saved_yet_still_has_the_first_one_s_data(
    project: Project, parent: RunDir
) -> None:
    origin = Origin(parent="x-abc234", parent_path="/x", step=50, changed={"seed": 7}, data_changed=True, time=1.0)
    origin.write(parent)
    for step, changes_data in ((50, True), (25, False)):
        done = project.xgen("fork", f"{path_of(parent)}@{step}", "--json", "--dry-run")
        assert json.loads(done.stdout)["data_changed"] is changes_data


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "model.dim=64",
            "--set: model.dim: 64 does not carry over: the checkpoint holds another; leave it, or write xgen submit "
            "with a spec of its own",
        ),
        (
            "stages.0.global_batch=2k",
            "--set: stages[0].global_batch: 2048 does not carry over: steps and tokens of the checkpoint are counted "
            "in its own batches; leave it",
        ),
        (
            "stages.0.tokens=50k",
            "--set: stages[0].tokens: 50000 tokens are 49 steps, and step-50 has 51200 tokens behind it; write more, "
            "or an earlier step",
        ),
        ("stages.0.lr.peek=1", "--set: stages[0].lr.peek: unknown key; write peak"),
        ("resources.partition=nowhere", "--set: resources.partition: 'nowhere' is not in the cluster profile"),
        ("name=Bad Name", "--set: name: 'Bad Name' has other characters than a-z"),
    ],
)
def test_what_cannot_carry_over_is_refused_before_anything_is_written(
    project: Project, parent: RunDir, setting: str, message: str
) -> None:
    before = project.files()
    code, said, errors = run_fork(project, path_of(parent), "--set", setting)
    assert (code, said, errors[0][: len(message)]) == (2, "", message)
    assert project.files() == before


def test_the_stage_of_the_checkpoint_is_not_cut_short_before_it(project: Project, parent: RunDir) -> None:
    stages = "  - {name: anneal, tokens: 80k}\n  - {name: long, tokens: 80k}\n"
    (project.path / "train.yaml").write_text(TRAIN + stages)
    parent.spec_file.write_text(dump(load_job(project.path / "train.yaml").job))
    save(parent, 100)  # the 21st step of anneal
    before = project.files()
    code, said, errors = run_fork(project, path_of(parent), "--set", "stages.1.tokens=20k")
    assert (code, said, errors) == (
        2, "", ["--set: stages[1].tokens: 20000 tokens are 20 steps, and step-100 is step 21 of anneal; "
                "write 21504 or more, or an earlier step"],
    )  # fmt: skip
    assert project.files() == before
    code, _, errors = run_fork(project, path_of(parent), "--set", "stages.1.tokens=21504", "--dry-run")
    assert code == 0, errors


def test_the_local_executor_s_one_job_is_queued_for_the_stage_that_it_begins_in(
    project: Project, parent: RunDir
) -> None:
    (project.path / "train.yaml").write_text(TRAIN + "  - {name: anneal, tokens: 80k}\n  - {name: long, tokens: 80k}\n")
    parent.spec_file.write_text(dump(load_job(project.path / "train.yaml").job))
    save(parent, 100)
    for step, stage in ((50, "only"), (100, "anneal")):
        before = set(new_runs(project))
        assert run_fork(project, f"{path_of(parent)}@{step}")[0] == 0
        (run,) = set(new_runs(project)) - before
        assert [e.stage for e in read_events(run) if e.event == "queued"] == [stage]


def test_a_broken_checkpoint_is_refused_and_the_others_named(project: Project, parent: RunDir) -> None:
    damage(parent.checkpoints_dir / "step-50")
    before = project.files()
    assert run_fork(project, path_of(parent)) == (
        2, "", [f"{NAME}@50 does not verify: __1_0.distcp: its checksum is not the manifest's; write one of 25"],
    )  # fmt: skip
    (parent.checkpoints_dir / "step-25/manifest.json").write_text("{")
    code, _, said = run_fork(project, f"{path_of(parent)}@25")
    assert (code, said[0].partition(" (step-25 is broken: manifest.json: cannot be read: ")[0]) == (
        2, f"{NAME} has no complete checkpoint of step 25",
    )  # fmt: skip
    assert project.files() == before


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("@30", f"{NAME} has no complete checkpoint of step 30; write one of 25, 50"),
        ("@last", "{path}@last: 'last' is no step; write RUN@STEP, e.g. {path}@500"),
    ],
)
def test_a_step_that_is_not_there_is_one_line(project: Project, parent: RunDir, step: str, message: str) -> None:
    assert run_fork(project, path_of(parent) + step) == (2, "", [message.format(path=parent.path)])


def test_a_run_without_checkpoints_cannot_be_forked(project: Project, parent: RunDir) -> None:
    shutil.rmtree(parent.checkpoints_dir)
    assert run_fork(project, path_of(parent)) == (
        2, "", [f"{NAME} has no complete checkpoint to begin from; write xgen submit {parent.spec_file}"],
    )  # fmt: skip


def test_across_file_systems_the_checkpoint_is_copied(
    project: Project, parent: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    link = os.link

    def across(source: str | Path, target: str | Path, **keys: bool) -> None:
        if "step-50" in str(source):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(source, target, **keys)

    monkeypatch.setattr(os, "link", across)
    monkeypatch.chdir(project.path)
    fork.command(path_of(parent), cluster=None)
    assert "checkpoint copied" in capsys.readouterr().out
    (run,) = new_runs(project)
    assert (run.checkpoints_dir / "step-50/.metadata").stat().st_nlink == 1
    shutil.rmtree(parent.path)
    assert [c.state for c in check(survey(run))] == ["verified"]
    assert read_origin(run) is not None


def test_a_checkpoint_that_goes_meanwhile_leaves_nothing(
    project: Project, parent: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    link = os.link

    def gone(source: str | Path, target: str | Path, **keys: bool) -> None:
        if "step-50" in str(source):
            shutil.rmtree(parent.checkpoints_dir / "step-50", ignore_errors=True)
        link(source, target, **keys)

    monkeypatch.setattr(os, "link", gone)
    monkeypatch.chdir(project.path)
    with pytest.raises(SystemExit) as end:
        fork.command(path_of(parent), cluster=None)
    assert end.value.code == 2
    assert f"{NAME}@50 was deleted while it was carried over" in capsys.readouterr().err
    assert new_runs(project) == []
    assert not list(project.runs.glob(".*.tmp"))


def test_a_dry_run_needs_no_torch(project: Project, parent: RunDir) -> None:
    from tests.cli.test_imports import HEAVY, modules_of

    assert modules_of(project, "fork", path_of(parent), "--dry-run") & HEAVY == set()


def test_a_project_that_has_no_room_for_it_refuses_a_fork(project: Project, parent: RunDir) -> None:
    with parent.profile_file.open("a") as file:
        file.write("projects: {nlp: {quota: {size: 1MB, over: refuse}}}\n")
    code, _, said = run_fork(project, path_of(parent), "--set", "project=nlp")
    assert code == 2
    assert "project: 'nlp' holds " in said[0]
    assert said[0].endswith("or write --over-budget")
    assert new_runs(project) == []
    code, _, said = run_fork(project, path_of(parent), "--set", "project=nlp", "--over-budget")
    assert (code, ["'nlp' holds" in line for line in said]) == (0, [True])
