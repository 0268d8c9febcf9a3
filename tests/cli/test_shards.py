"""The shards of a job array as the commands show and name them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.cli.conftest import HELLO, PROFILE, Project
from tests.cluster_unit.test_serving import rl
from xgen.cli.logs import _refuse_array
from xgen.cli.shards import find_shard, first_shard
from xgen.cluster.slurm import QueueRow
from xgen.cluster.status import QueueView, ShardsStatus, ask_queue, shards_status
from xgen.cluster.submit import next_stage
from xgen.runs import EventWriter, RunDir
from xgen.spec import Command, Resources, dump

NAME = "hello-abc234"
COMMAND = {"kind": "command", "name": "hello", "command": ["true"], "lead": "1s", "resources": {"time": "5m"}}


def make_run(project: Project, shards: int = 1000) -> RunDir:
    """An array of which 990 shards have finished and 2 were given up. Of the others there is nothing but the markers:
    what counts shards must not look into them."""
    run = RunDir(project.runs / NAME)
    run.create()
    (run.path / "local").mkdir()
    run.spec_file.write_text(HELLO + f"array: {{shards: {shards}, at_once: 8}}\n")
    run.profile_file.write_text(
        PROFILE.format(scheduler="local", request="none").replace(": runs", f": {project.runs}")
    )
    EventWriter(run, "host", 1, "7").write("started")
    run.attempt_dir(1).mkdir()
    for marker, numbers in ((".finished", range(shards - 10)), (".given-up", (shards - 3, shards - 1))):
        (run.shards_dir / "array" / marker).mkdir(parents=True)
        for number in numbers:
            (run.shards_dir / "array" / marker / str(number)).write_text(f"shard {number} broke\n")
    return run


@pytest.fixture
def run(project: Project) -> RunDir:
    return make_run(project)


def test_status_shows_how_many_shards_are_how_far_and_which_are_given_up(project: Project, run: RunDir) -> None:
    said = project.xgen("status", NAME, "--cluster", "local").stdout
    assert "\n  990 of 1000 shards done, 8 waiting, 2 given up\n" in said
    assert f"\n    shard 997 given up: shard 997 broke\n      xgen logs {NAME} --shard 997\n" in said
    shards = json.loads(project.xgen("status", NAME, "--cluster", "local", "--json").stdout)["shards"]
    assert shards == [
        {
            "stage": None, "total": 1000, "at_once": 8, "finished": 990, "running": [], "waiting": 8,
            "given_up": [
                {"shard": n, "reason": f"shard {n} broke", "path": str(run.shard("", n).path)} for n in (997, 999)
            ],
        }
    ]  # fmt: skip
    line = project.xgen("status", "--cluster", "local", env={"COLUMNS": "120"}).stdout.splitlines()
    assert len(line) == 2


def test_of_many_that_are_given_up_the_first_are_shown(project: Project, run: RunDir) -> None:
    for number in range(990, 1000):
        (run.shards_dir / "array/.given-up" / str(number)).write_text("it broke\n")
    (run.shards_dir / "array/.finished/0").rename(run.shards_dir / "array/.given-up/0")
    said = project.xgen("status", NAME, "--cluster", "local").stdout
    assert said.count(" given up: ") == 10
    assert f"    and 1 more: xgen status {NAME} --json\n" in said


def test_counting_ten_thousand_shards_takes_a_moment(project: Project) -> None:
    run = make_run(project, 10_000)
    job = Command.model_validate(COMMAND | {"array": {"shards": 10_000}})
    began = time.process_time()
    (found,) = shards_status(run, job, QueueView(None))
    assert time.process_time() - began < 0.2
    assert (len(found.finished), found.num_waiting) == (9990, 8)


def test_the_queue_says_which_shards_run(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"12_995|{NAME}|RUNNING", f"12_[996,998-999%8]|{NAME}|PENDING", f"13_994|{NAME}|PENDING", "14|x|RUNNING"]
    text = "\n".join(f"{row}|None|gpu|n1|N/A|0|" for row in rows)
    (tmp_path / "squeue").write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    view = ask_queue([])
    assert view.jobs is not None
    assert view.jobs[NAME] == QueueRow("12_995", NAME, "RUNNING", "None", "gpu", "n1", "N/A", "0")
    job = TwoArrays.model_validate(COMMAND | {"array": {"shards": 1000}})
    (run.shards_dir / "array").rename(run.shards_dir / "tag")
    tag, match = shards_status(run, job, view)
    assert (tag.running, tag.num_waiting) == ([995], 7)
    assert match == ShardsStatus("match", 1000, 0, [], [], [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shard", "1000"], f"--shard: '1000' is no shard of {NAME}; write xgen logs {NAME} --shard N, 0 to 999\n"),
        (["--shard", "x"], f"--shard: 'x' is no shard of {NAME}; write xgen logs {NAME} --shard N, 0 to 999\n"),
        (["--shard", "tag/3"], f"--shard: 'tag/3' names no stage of {NAME} with shards; "
                               f"write xgen logs {NAME} --shard N, 0 to 999\n"),
        (["--shard", "995"], f"shard 995 of {NAME} has not started; write xgen status {NAME}\n"),
        ([], f"{NAME} is a job array, and each of its shards has a log; write xgen logs {NAME} --shard N, 0 to 999\n"),
    ],
)  # fmt: skip
def test_a_log_that_is_not_there_is_one_line_with_what_to_write(
    project: Project, run: RunDir, arguments: list[str], said: str
) -> None:
    done = project.xgen("logs", NAME, "--cluster", "local", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_a_run_that_is_no_array_says_so(project: Project, run: RunDir) -> None:
    run.spec_file.write_text(HELLO)
    done = project.xgen("logs", NAME, "--cluster", "local", "--shard", "3")
    assert (done.returncode, done.stderr) == (2, f"--shard: {NAME} is no job array; write xgen logs {NAME}\n")


def test_following_a_shard_ends_with_the_shard(project: Project, run: RunDir) -> None:
    shard = run.shard("", 999)
    shard.attempt_dir(1).mkdir(parents=True)
    (shard.attempt_dir(1) / "out.log").write_text("0: so far\n")
    done = project.xgen("logs", "-f", NAME, "--cluster", "local", "--shard", "999", timeout=20)
    assert (done.returncode, done.stdout) == (0, "0: so far\n")


class TwoArrays(Command):
    @property
    def jobs(self) -> tuple[tuple[str, Resources], ...]:
        return ("tag", self.resources), ("match", self.resources)


def test_where_several_stages_are_arrays_a_shard_is_named_with_its_stage(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = TwoArrays.model_validate(COMMAND | {"array": {"shards": 64}})
    monkeypatch.setattr("xgen.spec.load_resolved", lambda _: job)
    assert find_shard(run, "match/63") == ("match", 63)
    for text in ("3", "select/3"):
        with pytest.raises(SystemExit):
            find_shard(run, text)
        assert capsys.readouterr().err == (
            f"--shard: {text!r} names no stage of {NAME} with shards; "
            f"write xgen logs {NAME} --shard tag/N, 0 to 63 or match/N, 0 to 63\n"
        )


def test_a_submission_says_how_many_shards_and_how_many_at_once(project: Project) -> None:
    (project.path / "array.yaml").write_text(HELLO + "array: {shards: 2, at_once: 1}\n")
    done = project.xgen("submit", "array.yaml", "--cluster", "local", "--id", "abc234")
    assert done.stdout.startswith(f"{NAME}  2 shards, 1 at once, each 1 nodes x 2 tasks in gpu\n"), done.stderr
    assert done.stdout.endswith(f"xgen logs -f {NAME} --shard 0 --cluster local\n")
    followed = project.xgen("logs", "-f", NAME, "--cluster", "local", "--shard", "0")
    assert "0: hi\n" in followed.stdout
    deadline = time.monotonic() + 30
    while "2 of 2 shards done\n" not in project.xgen("status", NAME, "--cluster", "local").stdout:
        assert time.monotonic() < deadline
    resumed = project.xgen("resume", NAME, "--cluster", "local")
    assert resumed.stderr == f"{NAME} has finished: nothing to resume\n"


@pytest.mark.parametrize(
    ("outcomes", "stage"),
    [([], 0), ([(0, "crashed")], 0), ([(0, "stage_finished")], 1), ([(0, "stage_finished"), (1, "crashed")], 1),
     ([(0, "crashed"), (0, "stage_finished"), (1, "stopped"), (1, "stage_finished")], 2)],
)  # fmt: skip
def test_a_resume_begins_in_the_first_stage_that_is_not_done(
    run: RunDir, outcomes: list[tuple[int, str]], stage: int
) -> None:
    for attempt, (of, status) in enumerate(outcomes, 1):
        run.attempt_dir(attempt).mkdir(exist_ok=True)
        text = json.dumps({"status": status, "stage": of, "time": 1})
        (run.attempt_dir(attempt) / "outcome.json").write_text(text)
    assert next_stage(run, TwoArrays.model_validate(COMMAND | {"array": {"shards": 2}})) == stage


def test_the_log_of_a_trainer_with_servers_is_waited_for_though_they_are_an_array(project: Project) -> None:
    run = RunDir(project.runs / NAME)
    run.create()
    run.shards_dir.mkdir()
    run.spec_file.write_text(dump(rl()))
    _refuse_array(run, 0)
    run.spec_file.write_text(HELLO + "array: {shards: 3}\n")
    with pytest.raises(SystemExit):
        _refuse_array(run, 0)


def test_what_is_submitted_names_the_log_of_its_first_shard() -> None:
    job = COMMAND | {"array": {"shards": 2}}
    assert first_shard(Command.model_validate(COMMAND)) == ""
    assert first_shard(Command.model_validate(job)) == "0"
    assert first_shard(TwoArrays.model_validate(job)) == f"{TwoArrays.model_validate(job).jobs[0][0]}/0"
    assert first_shard(rl()) == ""
