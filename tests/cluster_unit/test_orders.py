"""Hands on a running job: hold, release, requeue; and its log, which loses no line over all of that."""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.cluster_unit.conftest import (
    Bench,
    assert_every_step_once,
    events,
    exit_code,
    status,
    steps,
    tell,
    wait_for_steps,
    wait_until,
)
from tests.conftest import gives_away
from tests.conftest import xgen as command_line
from tests.train.folders import save
from xgen.cli import resume
from xgen.cli.checkpoints_change import sound_target
from xgen.cli.main import app
from xgen.cli.requeue import _kept
from xgen.cluster.orders import is_held, job_of, jobs_of
from xgen.cluster.slurm import QueueRow
from xgen.cluster.status import QueueView, run_status
from xgen.runs import RunDir

SPEAK = "import time, sys\nfor n in range(2000):\n print('line', n, flush=True)\n time.sleep(0.05)"


def xgen(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def facts(*arguments: str) -> Any:
    done = xgen(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def state(run: RunDir) -> tuple[str, str]:
    found = run_status(run, QueueView({}))
    return found.state, found.reason


@pytest.mark.parametrize("order", ["hold", "release", "requeue"])
def test_an_order_to_a_pipeline_is_refused_for_it_has_no_job(tmp_path: Path, order: str) -> None:
    run = RunDir(tmp_path / "demo-abc234")
    run.create()
    run.spec_file.touch()
    (run.path / "pipeline.json").touch()
    done = xgen(order, str(run.path))
    assert (done.exit_code, run.held_file.exists()) == (2, False)
    assert "is a pipeline, which has no job of its own" in done.stderr


def test_whoever_resumes_a_run_that_another_resumes_waits_and_then_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resume, "_LOCK_TIME", 0.2)
    run = RunDir(tmp_path / "demo-abc234")
    run.create()
    with (run.path / ".resume.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(SystemExit):
            resume.hold(run)
    assert "is being resumed or settled by somebody else" in capsys.readouterr().err


def test_a_held_run_saves_and_waits_until_it_is_released_and_its_log_loses_nothing(bench: Bench) -> None:
    run = bench.count(5000, "--step", 0.05)
    path = str(run.path)
    wait_for_steps(run, 3)
    assert facts("hold", path)["was"] == "running"
    assert "on hold: its next attempt does not begin" in xgen("why", path).stdout
    assert state(run) == ("running", "on hold: its next attempt does not begin")
    assert facts("requeue", path)["held"] is True
    wait_until(lambda: state(run) == ("pending", "JobHeldUser"), lambda: tell(run))
    assert (status(run, 1), run.last_attempt()) == ("stopped", 1)
    assert (
        xgen("requeue", path).stderr
        == f"{run.name} is pending: nothing of it runs, and it begins from its newest checkpoint\n"
    )
    assert f"do: xgen release {run.name}\n" in xgen("why", path).stdout
    assert xgen("hold", path).stdout == f"{run.name} waits until xgen release {run.name}\n"
    before = xgen("logs", path, "--json").stdout.splitlines()
    place = json.loads(before[-1])["cursor"]
    assert xgen("release", path).stdout == f"{run.name} is released\n"
    saved = steps(run)[-1][0]
    wait_until(lambda: steps(run)[-1][0] > saved + 2, lambda: tell(run))
    xgen("cancel", path)
    assert exit_code(run) == 75, tell(run)
    assert (status(run, 2), run.last_attempt()) == ("cancelled", 2)
    assert_every_step_once(run, steps(run)[-1][0])
    assert [len(events(run, name)) for name in ("held", "asked", "released")] == [1, 1, 1]
    assert [e.reason for e in events(run, "requeued")] == ["other"]
    *after, end = xgen("logs", path, "-f", "--after", place, "--json").stdout.splitlines()
    whole = xgen("logs", path, "--all-attempts", "--json").stdout.splitlines()
    assert before + after == whole
    assert json.loads(end) == {"ended": "cancelled", "reason": "", "cursor": json.loads(whole[-1])["cursor"]}
    assert len({json.loads(line)["cursor"] for line in whole}) == len(whole)
    assert (run.attempt_dir(1) / "log.times").read_text()


def test_a_command_runs_beside_a_task_and_what_cannot_be_ordered_says_why(bench: Bench) -> None:
    run = bench.submit([sys.executable, "-c", SPEAK])
    path = str(run.path)
    out = run.attempt_dir(1) / "out.log"
    wait_until(lambda: out.exists() and b"1: line" in out.read_bytes(), lambda: tell(run))
    beside = 'echo "$XGEN_RANK $XGEN_ATTEMPT $PWD"; exit 5'
    done = command_line("exec", path, "--rank", "1", "--", "sh", "-c", beside)
    assert (done.returncode, done.stdout) == (5, f"1 1 {run.code_dir}\n"), done.stderr
    said = command_line("exec", path, "--rank", "2", "--", "true").stderr
    assert said == f"--rank: {run.name} has ranks 0 to 1; 2 is none\n"
    assert xgen("release", path).stderr == f"{run.name} is not held: it is running\n"
    said = xgen("requeue", path, "--from", "5").stderr
    assert said == f"--from: {run.name} is a command, whose checkpoints are its own; write xgen fork {run.name}@5\n"
    assert xgen("requeue", "no-such-run-abc234/x").exit_code == 2
    assert not run.held_file.exists()
    xgen("cancel", path)
    exit_code(run)
    said = f"{run.name} is cancelled: no job of it is in the queue; write xgen resume {run.name}\n"
    assert [xgen(order, path).stderr for order in ("hold", "release", "requeue")] == [said] * 3


@gives_away
@pytest.mark.parametrize("order", ["hold", "release", "requeue"])
def test_somebody_else_s_run_takes_no_orders(bench: Bench, order: str) -> None:
    run = RunDir(bench.path / "runs/job-abc234")
    run.create()
    run.spec_file.touch()
    shutil.chown(run.path, "nobody")
    done = xgen(order, str(run.path))
    assert (done.exit_code, done.stderr) == (
        2,
        f"{run.name}: it belongs to nobody, who alone can hold or resume it\n",
    )


def row(job_id: str, state: str, reason: str = "None", name: str = "job-abc234") -> QueueRow:
    return QueueRow(job_id, name, state, reason, "gpu", "", "N/A", "0")


def test_jobs_are_named_as_scontrol_takes_them() -> None:
    rows = [
        row("7", "RUNNING"),
        row("8", "PENDING", "Dependency"),
        row("9_[4-9%2]", "PENDING", "JobHeldUser"),
        row("9_3", "COMPLETING"),
        row("10", "PENDING", name="other-abc234"),
    ]
    run = RunDir(Path(rows[0].name))
    assert jobs_of(run, rows, running=True) == ["7"]
    assert jobs_of(run, rows, running=False) == ["8", "9_[4-9]"]
    assert [job_of(row(name, "PENDING")) for name in ("12_[1,3-5%4]", "12_3", "12")] == ["12_[1,3-5]", "12_3", "12"]
    assert [is_held(one) for one in rows] == [False, False, True, False, False]
    assert is_held(row("3", "REQUEUE_HOLD", "(launch failed requeued held)"))
    assert not is_held(row("3", "RUNNING", "JobHeldUser"))


def test_the_checkpoint_to_go_back_to_outlives_the_save_of_the_stop(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "job-abc234")
    run.create()
    for step in (10, 20):
        save(run, step)
    with _kept(run, 10):
        shutil.rmtree(run.checkpoints_dir / "step-10")  # as the trainer does that keeps two
        save(run, 30)
    assert sound_target(run, 10, "--from")
    assert {path.name for path in run.checkpoints_dir.iterdir()} == {"step-10", "step-20", "step-30"}
    with _kept(run, 10):
        pass
    assert {path.name for path in run.checkpoints_dir.iterdir()} == {"step-10", "step-20", "step-30"}
