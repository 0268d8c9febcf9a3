"""A submission makes one job, whatever the controller answers and whenever the client dies; and loses none."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.cluster_unit.fake_controller import FakeController
from xgen.cluster import asked, slurm
from xgen.cluster.asked import Asked, adopt, asked_of, submit_once
from xgen.cluster.guard import submit_guard
from xgen.cluster.status import ask_queue
from xgen.cluster.submit import resubmit
from xgen.runs import EventWriter, RunDir, read_events
from xgen.spec import Command, Partition, Profile, Resources
from xgen.spec.restart import Restart

SCRIPT = "#!/bin/bash\n#SBATCH --job-name=demo-abc234\ntrue\n"


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeController:
    found = FakeController(tmp_path / "slurm")
    monkeypatch.setenv("PATH", found.environment["PATH"])
    monkeypatch.setattr(slurm, "_TIMEOUT", 2.0)
    monkeypatch.setattr(asked, "_PATIENCE", 30.0)
    monkeypatch.setattr(asked, "_SETTLE", 2.0)
    return found


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "demo-abc234")
    made.create()
    for folder in ("jobs", "submissions"):
        (made.path / folder).mkdir()
    return made


class Fast:
    """A clock whose hours pass in a moment; what happens in the background gets some of it."""

    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds
        time.sleep(min(seconds, 0.2))


def submit(run: RunDir) -> str:
    clock = Fast()
    return submit_once(run, 0, SCRIPT, 1, {}, "stage:only", asked.Clock(clock.now, clock.sleep))


ANSWERS = [
    ("well", ()),
    *(
        (sbatch, squeue)
        for sbatch in ("heard", "silent", "hang", "late", "deaf")
        for squeue in ((), ("error",), ("empty",))
    ),
    ("heard", ("hang",)),
    ("deaf", ("hang", "error")),
]


@pytest.mark.parametrize(
    ("sbatch", "squeue"), ANSWERS, ids=lambda value: "-".join(value) if isinstance(value, tuple) else value
)
def test_there_is_one_job_in_the_end_and_the_run_knows_it(
    controller: FakeController, run: RunDir, sbatch: str, squeue: tuple[str, ...]
) -> None:
    controller.next("sbatch", sbatch)
    controller.next("squeue", *squeue)
    job_id = submit(run)
    assert controller.jobs() == [job_id]
    assert run.job_file(0).read_text() == f"{job_id}\n"
    assert list(asked_of(run)) == []
    assert len(controller.calls("sbatch")) == (2 if sbatch == "deaf" else 1)
    [word] = [word for word in controller.calls("sbatch")[0].split() if word.startswith("xgen:")]
    assert all(word in call for call in controller.calls("sbatch"))  # told again, it has the same key


def test_what_is_heard_twice_all_the_same_is_cancelled_once(controller: FakeController, run: RunDir) -> None:
    controller.next("sbatch", "heard")
    controller.always("squeue", "empty")  # it has forgotten what it heard, and remembers later

    class Remembers(Fast):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.passed > 2.0:
                controller.always("squeue", "")
                controller.next("squeue", "empty")

    clock = Remembers()
    job_id = submit_once(run, 0, SCRIPT, 1, {}, "", asked.Clock(clock.now, clock.sleep))
    assert controller.jobs() == [job_id]


def test_what_is_refused_is_told_once(controller: FakeController, run: RunDir) -> None:
    controller.next("sbatch", "refused")
    with pytest.raises(slurm.SchedulerError, match="Invalid account"):
        submit(run)
    assert len(controller.calls("sbatch")) == 1
    assert controller.calls("squeue") == []
    assert list(asked_of(run)) == []


def test_a_controller_that_never_answers_is_asked_for_a_while_and_what_it_may_know_is_on_record(
    controller: FakeController, run: RunDir
) -> None:
    controller.next("sbatch", "heard")
    controller.always("squeue", "error")
    with pytest.raises(slurm.UnansweredError, match="for 30 s; whether it has the job is not known"):
        submit(run)
    assert len(controller.calls("sbatch")) == 1
    assert 4 <= len(controller.calls("squeue")) <= 8  # with longer and longer pauses
    assert [stage for stage, _ in asked_of(run)] == [0]
    # Once it answers, the next command of any kind takes the job in.
    controller.always("squeue", "")
    assert adopt(run) == controller.jobs()
    assert run.job_file(0).read_text().split() == controller.jobs()


def test_one_that_hears_nothing_three_times_has_no_job(controller: FakeController, run: RunDir) -> None:
    controller.next("sbatch", "deaf", "deaf", "deaf")
    with pytest.raises(slurm.SchedulerError, match="it has no such job, and was told 3 times"):
        submit(run)
    assert controller.jobs() == []
    assert list(asked_of(run)) == []


JOB = Command(
    kind="command", name="demo", command=["work"], resources=Resources.model_validate({"time": "1h"}),
    restart=Restart(guard=True),
)  # fmt: skip
PROFILE = Profile(run_root="/runs", partitions={"gpu": Partition()})


def test_of_the_client_s_environment_the_job_gets_what_is_its_own(
    controller: FakeController, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_CONF", "SBATCH_ACCOUNT", "SBATCH_WAIT", "SLURM_JOB_ID", "HF_TOKEN", "https_proxy"):
        monkeypatch.setenv(name, "x")
    (controller.bin / "sbatch").write_text(f"#!/bin/sh\nenv >'{run.path}/given'\necho Submitted batch job 7\n")
    submit_once(run, 0, SCRIPT, 1, {"XGEN_SECRETS_KEY": "k"})
    given = {line.partition("=")[0] for line in (run.path / "given").read_text().splitlines()}
    assert {"SLURM_CONF", "SBATCH_ACCOUNT", "XGEN_SECRETS_KEY", "PATH"} <= given
    assert not given & {"SBATCH_WAIT", "SLURM_JOB_ID", "HF_TOKEN", "https_proxy"}


@pytest.mark.parametrize("answer", ["well", "heard", "silent", "late", "deaf"])
def test_a_guard_is_submitted_once_too(controller: FakeController, run: RunDir, answer: str) -> None:
    controller.next("sbatch", answer)
    clock = Fast()
    submit_guard(run, JOB, PROFILE, 0, "101", {}, asked.Clock(clock.now, clock.sleep))
    assert [run.job_file(0).with_suffix(".guard").read_text().strip()] == controller.jobs()
    assert len(controller.calls("sbatch")) == (2 if answer == "deaf" else 1)


def test_a_settlement_that_nobody_answered_leaves_what_may_have_been_heard_to_the_next_command(
    controller: FakeController, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who resumes writes it again; here nobody would, and a mark would end the run."""
    monkeypatch.setattr(asked, "_PATIENCE", 1.0)
    run.attempt_dir(1).mkdir()
    controller.next("sbatch", "heard")
    controller.always("squeue", "error")
    with pytest.raises(slurm.UnansweredError):
        resubmit(run, JOB, PROFILE, 0, wait=0)
    assert (run.cancelled_file.exists(), controller.calls("scancel")) == (False, [])
    controller.always("squeue", "")
    assert adopt(run) == controller.jobs() == run.job_file(0).read_text().split()


def left_by(run: RunDir, pid: int, age: float = 60, host: str | None = None) -> Asked:
    left = Asked("k3y234", time.time() - age, host or os.uname().nodename, pid)
    run.job_file(0).with_name("0.asked").write_text(json.dumps(asdict(left)))
    return left


def dead_pid() -> int:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_a_number_that_another_process_has_now_is_no_client_for_ever() -> None:
    host, other = os.uname().nodename, os.getppid()
    assert Asked("k3f9ab", time.time(), host, other).is_under_way
    assert not Asked("k3f9ab", time.time() - 7200, host, other).is_under_way
    assert not Asked("k3f9ab", time.time(), host, dead_pid()).is_under_way


def test_the_job_of_a_client_that_was_killed_is_taken_in_by_the_next_question(
    controller: FakeController, run: RunDir
) -> None:
    left = left_by(run, dead_pid())
    (controller.folder / "jobs").write_text(f"107|demo-abc234|stage:only {left.word}|PENDING\n")
    view = ask_queue([run])
    assert view.jobs is not None
    assert run.name in view.jobs
    assert run.job_file(0).read_text() == "107\n"
    [queued] = read_events(run)
    assert (queued.event, queued.job_id) == ("queued", "107")
    assert ask_queue([run]).jobs == view.jobs
    assert len(read_events(run)) == 1


@pytest.mark.parametrize(("has_begun", "after"), [(False, 2), (True, 1)], ids=["waiting", "running"])
def test_a_job_that_is_taken_in_was_queued_after_the_attempt_before_its_own(
    controller: FakeController, run: RunDir, has_begun: bool, after: int
) -> None:
    for attempt, job_id in ((1, "90"), (2, "107" if has_begun else "90")):
        run.attempt_dir(attempt).mkdir()
        EventWriter(run, "host", attempt, job_id).write("started")
    left = left_by(run, dead_pid())
    (controller.folder / "jobs").write_text(f"107|demo-abc234|{left.word}|RUNNING\n")
    assert adopt(run) == ["107"]
    [queued] = [event for event in read_events(run) if event.event == "queued"]
    assert queued.attempt == after


def test_what_was_never_heard_is_forgotten_and_a_client_at_work_is_left_alone(
    controller: FakeController, run: RunDir
) -> None:
    left_by(run, os.getppid(), age=20)
    assert adopt(run) == []
    assert len(list(asked_of(run))) == 1  # it is at it
    left_by(run, 1, age=10, host="elsewhere")
    assert adopt(run) == []
    assert len(list(asked_of(run))) == 1  # nobody can tell from here, yet
    left_by(run, dead_pid())
    controller.next("squeue", "error")
    with pytest.raises(slurm.SchedulerError):
        adopt(run)
    assert len(list(asked_of(run))) == 1  # unknown is not gone
    assert adopt(run) == []
    assert list(asked_of(run)) == []
    assert controller.calls("sbatch") == []
