"""With a scheduler that hangs or fails every command answers in bounded time, and says what it does not know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Project
from tests.cluster_unit.fake_controller import FakeController
from xgen.runs import RunDir, read_events


@pytest.fixture
def controller(tmp_path: Path) -> FakeController:
    return FakeController(tmp_path / "slurm")


def environment(controller: FakeController) -> dict[str, str]:
    return {
        **controller.environment, "XGEN_CLUSTER": "batch", "XGEN_SCHEDULER_TIMEOUT": "1", "XGEN_SUBMIT_PATIENCE": "2",
    }  # fmt: skip


def test_a_run_is_unknown_then_marked_and_its_job_is_never_two(project: Project, controller: FakeController) -> None:
    env = environment(controller)
    controller.next("sbatch", "silent")  # heard, and no number was said
    done = project.xgen("submit", "hello.yaml", "--id", "aaa222", "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert controller.jobs() == [json.loads(done.stdout)["job_id"]] == ["101"]
    run = RunDir(project.runs / "hello-aaa222")

    controller.always("squeue", "hang")
    status = json.loads(project.xgen("status", run.name, "--json", env=env).stdout)["status"]
    assert (status["state"], status["reason"]) == ("unknown", "squeue did not answer within 1 s")
    for command in ("resume", "cancel"):
        done = project.xgen(command, run.name, env=env)
        assert done.returncode == 3
        assert "squeue did not answer within 1 s" in done.stderr
    assert run.cancelled_file.exists()  # what could be done without SLURM
    assert controller.jobs() == ["101"]

    controller.always("squeue", "")
    done = project.xgen("resume", run.name, env=env)
    assert done.stdout == f"{run.name} goes on as job 101, which was still in the queue\n"
    assert not run.cancelled_file.exists()
    assert controller.jobs() == ["101"]
    assert len(controller.calls("sbatch")) == 1


def test_a_cancel_that_slurm_did_not_hear_leaves_the_job_its_secrets(
    project: Project, controller: FakeController
) -> None:
    """`xgen resume` lets that job go on, which has the key of these and of no others."""
    env = environment(controller)
    assert project.xgen("submit", "hello.yaml", "--id", "ccc222", env=env).returncode == 0
    secrets = project.runs / "hello-ccc222/.secrets"
    secrets.write_text("sealed")
    (controller.folder / "scancel.always").touch()
    assert project.xgen("cancel", "hello-ccc222", env=env).returncode == 3
    assert secrets.exists()
    (controller.folder / "scancel.always").unlink()
    assert project.xgen("cancel", "hello-ccc222", env=env).returncode == 0
    assert not secrets.exists()


def test_a_step_whose_cancel_slurm_did_not_hear_goes_on_with_its_pipeline(
    project: Project, controller: FakeController
) -> None:
    env = environment(controller)
    steps = "steps: {a: {spec: hello.yaml}, b: {spec: hello.yaml, after: [a]}}\n"
    (project.path / "both.yaml").write_text(f"kind: pipeline\nname: both\n{steps}")
    done = project.xgen("submit", "both.yaml", "--id", "ddd222", env=env)
    assert done.returncode == 0, done.stderr
    jobs = controller.jobs()
    (controller.folder / "scancel.always").touch()
    assert project.xgen("cancel", "both-ddd222", env=env).returncode == 3
    marked = list(project.runs.glob("*/cancelled"))
    assert project.runs / "both-b-ddd222/cancelled" in marked
    done = project.xgen("resume", "both-ddd222", env=env)
    assert done.returncode == 0, done.stderr
    assert list(project.runs.glob("*/cancelled")) == []
    assert controller.jobs() == jobs


def test_a_submission_that_nobody_speaks_of_stays_as_a_cancelled_run(
    project: Project, controller: FakeController
) -> None:
    env = environment(controller)
    controller.next("sbatch", "heard")
    controller.always("squeue", "error")
    (controller.folder / "scancel.always").touch()
    done = project.xgen("submit", "hello.yaml", "--id", "bbb222", env=env)
    assert done.returncode == 3
    assert "whether it has the job is not known; hello-bbb222 is marked as cancelled" in done.stderr
    run = RunDir(project.runs / "hello-bbb222")
    assert run.cancelled_file.exists()
    assert run.job_file(0).with_name("0.asked").exists()
    # Once it answers, the job is known, and a resume goes on with it.
    controller.always("squeue", "")
    done = project.xgen("resume", run.name, env=env)
    assert "goes on as job 101" in done.stdout, done.stderr
    assert run.job_file(0).read_text() == "101\n"
    assert [event.event for event in read_events(run)] == ["submitted", "queued", "queued"]
    assert len(controller.calls("sbatch")) == 1
