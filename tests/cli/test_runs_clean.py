"""`xgen runs clean` removes what has ended and nobody needs, and never the last checkpoint of what could go on."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.cli.conftest import HELLO, Project
from tests.conftest import gives_away
from tests.train.folders import save
from xgen.cli.main import app
from xgen.runs import RunDir
from xgen.train import ckpt_admin

OLD = time.time() - 100 * 86400


@pytest.fixture(autouse=True)
def _there(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(project.path / "cache"))


def make(project: Project, name: str, ended: str = "finished", steps: tuple[int, ...] = (), age: float = OLD) -> RunDir:
    run = RunDir(project.runs / name)
    run.create()
    run.spec_file.write_text(HELLO)
    (run.path / "local").mkdir()
    fact = {"time": age, "run": name, "attempt": 1, "job_id": "7", "event": ended, "writer": "host"}
    (run.events_dir / "host.jsonl").write_text(json.dumps(fact) + "\n")
    for step in steps:
        folder = run.checkpoints_dir / f"step-{step}"
        folder.mkdir()
        (folder / "manifest.json").write_text("{}")
    (run.path / "much").write_bytes(b"x" * 8192)
    os.utime(run.events_dir / "host.jsonl", (age, age))
    return run


def clean(*arguments: str) -> Result:
    done = CliRunner().invoke(app, ["runs", "clean", "--cluster", "local", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def facts(*arguments: str) -> Any:
    return json.loads(clean(*arguments, "--json").stdout)


def names(project: Project) -> set[str]:
    return {path.name for path in project.runs.iterdir() if not path.name.startswith(".")}


def test_what_ended_long_ago_is_shown_and_goes_when_it_is_said_twice(project: Project) -> None:
    run = make(project, "old-abc234")
    make(project, "new-abc234", age=time.time())
    make(project, "dead-abc234", "started")
    run.discovery_file.parent.mkdir()
    run.discovery_file.touch()
    before = project.files()
    shown = clean()
    assert "remove " in shown.stdout
    assert "finished   old-abc234" in shown.stdout
    assert shown.stdout.endswith("nothing is removed yet: write it again with --yes\n")
    assert project.files() - before <= {f for f in project.files() if f.startswith("cache")}
    assert facts()["bytes"] >= 8192
    assert "1 run gone, " in clean("--yes").stdout
    assert names(project) == {"new-abc234", "dead-abc234"}
    assert not run.discovery_file.exists()
    assert clean("--yes").stdout == "nothing to remove\n"


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_the_last_checkpoint_of_what_could_go_on_stays(project: Project, state: str) -> None:
    run = make(project, "job-abc234", state, steps=(100, 200))
    make(project, "none-abc234", state)
    said = clean("--yes").stdout
    assert f"stays   job-abc234: it is {state}, and its last checkpoint is step 200; --give-up job-abc234\n" in said
    assert names(project) == {"job-abc234"}
    assert run.checkpoint_steps() == [100, 200]
    unnamed = clean("--give-up", "--yes")
    assert (unnamed.exit_code, names(project)) == (2, {"job-abc234"})
    assert unnamed.stderr == "--give-up: name the runs that are given up, whose last checkpoint goes too\n"
    clean("--give-up", "job-abc234", "--yes")
    assert names(project) == set()


def test_what_others_refer_to_stays_and_goes_with_them(project: Project) -> None:
    make(project, "base-abc234", steps=(1,))
    fork = make(project, "fork-abc234", age=time.time())
    (fork.path / "origin.json").write_text('{"parent": "base-abc234"}')
    scored = make(project, "eval-abc234")
    scored.spec_file.write_text(HELLO + "checkpoints: {run: fork-abc234}\n")
    assert facts("--yes")["staying"] == {"base-abc234": "fork-abc234 refers to it"}
    assert names(project) == {"base-abc234", "fork-abc234"}
    assert [row["run"] for row in facts("--older-than", "0s")["would_remove"]] == ["base-abc234", "fork-abc234"]
    clean("--referred", "--yes")
    assert names(project) == {"fork-abc234"}


def test_what_a_run_began_with_stays_with_a_run_that_could_go_on(project: Project) -> None:
    """A pipeline whose second step failed: it needs the first one's weights, and the pipeline's record."""
    make(project, "first-abc234", steps=(10,))
    second = make(project, "second-abc234", "failed", steps=(5,))
    (second.path / "init.json").write_text('{"run": "first-abc234"}')
    (second.path / "step.json").write_text('{"pipeline": "whole-abc234", "step": "second"}')
    make(project, "whole-abc234", "failed")
    clean("--yes")
    assert names(project) == {"first-abc234", "second-abc234", "whole-abc234"}
    clean("--yes", "--keep-checkpoints", "1")
    assert names(project) == {"first-abc234", "second-abc234", "whole-abc234"}
    clean("--yes", "--give-up", *names(project))
    assert names(project) == set()


def test_a_checkpoint_that_another_run_may_have_named_stays(project: Project) -> None:
    first = make(project, "first-abc234")
    for step in (1, 2):
        save(first, step)
    second = make(project, "second-abc234", "failed")
    (second.path / "origin.json").write_text('{"run": "first-abc234", "step": 1}')
    assert facts("--yes", "--keep-checkpoints", "1")["removed"] == {}
    assert facts("--yes", "--keep-checkpoints", "1", "--referred")["removed"] == {"first-abc234": ["step-1"]}


def test_only_the_newest_checkpoints_of_each_run_may_stay(project: Project) -> None:
    run = make(project, "job-abc234", "failed")
    for step in (10, 20, 30):
        save(run, step)
    assert set(facts("--keep-checkpoints", "2")["would_remove"]["job-abc234"]) == {"step-10"}
    assert run.checkpoint_steps() == [10, 20, 30]
    clean("--keep-checkpoints", "1", "--yes")
    assert run.checkpoint_steps() == [30]
    clean("--keep-checkpoints", "1", "--yes")
    assert run.checkpoint_steps() == [30]


def test_what_a_removal_left_when_it_was_killed_goes_the_next_time(project: Project) -> None:
    run = make(project, "old-abc234")
    run.path.rename(project.runs / ".removed-old-abc234.999999999")
    (project.runs / ".removed-something").mkdir()
    assert len(facts("--yes")["leftovers"]) == 1
    assert {path.name for path in project.runs.iterdir()} == {".removed-something"}


def test_a_checkpoint_that_cannot_be_removed_is_no_success(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(project, "job-abc234", "failed")
    for step in (10, 20):
        save(run, step)

    def refuse(_: object) -> int:
        raise OSError("read-only file system")

    monkeypatch.setattr(ckpt_admin, "delete", refuse)
    done = clean("--keep-checkpoints", "1", "--yes", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["removed"], found["staying"]) == (1, {}, {run.name: "read-only file system"})


def test_what_cannot_be_removed_is_not_said_to_be_gone(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    left = project.runs / ".removed-old-abc234.999999999"
    left.mkdir(parents=True)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    done = clean("--yes", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["leftovers"]) == (1, [])
    assert found["staying"] == {left.name: "not all of it can be removed"}


def test_what_is_resumed_meanwhile_stays(project: Project) -> None:
    run = make(project, "old-abc234", "failed")
    with (run.path / ".resume.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert facts("--yes")["staying"] == {"old-abc234": "somebody resumes it"}
    assert run.spec_file.exists()


@gives_away
def test_somebody_else_s_runs_stay(project: Project) -> None:
    run = make(project, "old-abc234")
    shutil.chown(run.path, "nobody")
    assert clean("--yes").stdout == "nothing to remove\n"
    assert facts("old-abc234", "--yes")["staying"] == {"old-abc234": "it is somebody else's"}
    assert run.spec_file.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--state", "running"], "--state: 'running' is none that is removed; write finished, failed, cancelled\n"),
        (["--older-than", "30"], "--older-than: '30' is not a duration; write 30s, 30m or 30h\n"),
        (["no-abc234"], "no run no-abc234 in "),
    ],
)
def test_a_mistake_is_one_line(project: Project, arguments: list[str], said: str) -> None:
    make(project, "old-abc234")
    done = clean(*arguments)
    assert (done.exit_code, done.stderr.startswith(said)) == (2, True), done.stderr
    assert Path("runs/old-abc234").is_dir()


def test_code_that_no_run_shares_any_more_goes(project: Project) -> None:
    run = make(project, "old-abc234")
    shared = project.runs / ".code/abc"
    shared.mkdir(parents=True)
    (shared / "a.py").write_text("x = 1\n")
    run.code_dir.mkdir()
    os.link(shared / "a.py", run.code_dir / "a.py")
    assert facts()["leftovers"] == []
    clean("--yes")
    assert not shared.exists()
