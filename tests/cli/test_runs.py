"""Commands about runs that something happened to: of others, of another machine, unreadable, cancelled, lost."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.conftest import HELLO, PROFILE, Project
from tests.cluster_unit.conftest import wait_until
from tests.conftest import gives_away
from xgen.cli.logs import _again
from xgen.cli.resume import _from_where
from xgen.cli.status import timeline
from xgen.cluster import local
from xgen.runs import EventWriter, RunDir, read_events
from xgen.spec import Command, Resources

NAME = "hello-abc234"


@pytest.fixture
def run(project: Project) -> RunDir:
    """A local run that started once, and that nothing runs any more."""
    made = RunDir(project.runs / NAME)
    made.create()
    (made.path / "local").mkdir()
    made.spec_file.write_text(HELLO)
    made.profile_file.write_text(
        PROFILE.format(scheduler="local", request="none").replace(": runs", f": {project.runs}")
    )
    EventWriter(made, "host", 1, "7").write("started")
    made.attempt_dir(1).mkdir()
    (made.attempt_dir(1) / "out.log").write_text("0: so far\n")
    return made


def test_a_run_that_cannot_be_read_is_one_line_and_takes_nothing_from_the_others(project: Project, run: RunDir) -> None:
    other = RunDir(project.runs / "secret-abc234")
    other.create()
    other.spec_file.write_text(HELLO)
    other.path.chmod(0)
    # Root may read everything, unless it lays that down.
    weak = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    try:
        said = [
            subprocess.run(
                [*weak, sys.executable, "-m", "xgen.cli.main", "status", *names, "--cluster", "local"],
                cwd=project.path, capture_output=True, text=True, env=os.environ | {"COLUMNS": "120"},
            )
            for names in ([], ["secret"])
        ]  # fmt: skip
    finally:
        other.path.chmod(0o700)
    assert [(done.returncode, done.stderr) for done in said] == [(0, ""), (0, "")]
    rows = sorted(line.split()[:2] for line in said[0].stdout.splitlines()[1:])
    assert rows == [[NAME, "lost"], ["secret-abc234", "unreadable"]]
    assert said[1].stdout == "secret-abc234  unreadable (Permission denied)\n"


def test_work_without_steps_has_none_to_show(project: Project, run: RunDir) -> None:
    EventWriter(run, "host", 1, "7").write("exited")
    lines = project.xgen("status", NAME, "--cluster", "local", env={"COLUMNS": "120"}).stdout.splitlines()
    assert lines[1] == "  job 7, attempt 1"
    assert "work " in lines[-2]
    assert "effective" not in lines[-2]
    assert lines[-1] == f"do: xgen why {NAME}"  # nobody decided what follows


def test_a_list_of_runs_fits_80_columns_with_the_reasons_below(project: Project, run: RunDir) -> None:
    EventWriter(run, "host", 1, "7").write("failed", reason=f"rank 0: {'no such thing ' * 9}")
    wide, narrow = (
        project.xgen("status", "--cluster", "local", env={"COLUMNS": columns}).stdout.splitlines()
        for columns in ("200", "80")
    )
    assert (len(wide), wide[0].split()[-1]) == (2, "reason")
    head, row, reason = narrow
    assert (row.split()[:2], len(reason)) == ([NAME, "failed"], 80)
    assert reason.startswith("    rank 0: no such thing")
    assert "reason" not in head


def test_a_rank_that_a_run_does_not_have_is_named(project: Project, run: RunDir) -> None:
    done = project.xgen("logs", NAME, "--rank", "7", "--cluster", "local")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"--rank: {NAME} has ranks 0 to 1; 7 is none\n"


@pytest.mark.parametrize(
    "begin", [["-n", "9"], ["-n9"], ["--tail", "9"], ["--tail=9"], ["--since", "9m"], ["--after=1:0:0"]]
)
def test_the_command_that_goes_on_with_a_log_says_anew_where_to_begin(begin: list[str]) -> None:
    assert _again(["/bin/xgen", "logs", "-f", *begin, "a run"]) == "xgen logs -f 'a run'"


def test_a_missing_secret_leaves_the_run_cancelled(project: Project, run: RunDir) -> None:
    run.spec_file.write_text(HELLO + "secrets: {HF_TOKEN: {env: NO_SUCH_VARIABLE}}\n")
    run.cancelled_file.touch()
    done = project.xgen("resume", NAME, "--cluster", "local")
    assert done.returncode == 2
    assert (
        done.stderr == "secrets.HF_TOKEN.env: NO_SUCH_VARIABLE is not set here; write export NO_SUCH_VARIABLE=… first\n"
    )
    assert run.cancelled_file.exists()
    assert not (run.path / "local/pid").exists()


@pytest.mark.parametrize("command", ["cancel", "resume"])
def test_a_local_run_of_another_machine_is_left_alone(project: Project, run: RunDir, command: str) -> None:
    (run.path / "local/host").write_text("node7\n")
    done = project.xgen(command, NAME, "--cluster", "local")
    assert (done.returncode, done.stderr) == (
        2,
        f"{NAME}: node7 runs it; write this there, or rm {run.path}/local/host if that machine is gone\n",
    )
    assert not run.cancelled_file.exists()
    assert [e.event for e in read_events(run)] == ["started"]


@gives_away
@pytest.mark.parametrize("command", ["cancel", "resume"])
def test_somebody_else_s_run_is_left_alone(project: Project, run: RunDir, command: str) -> None:
    shutil.chown(run.path, "nobody")
    done = project.xgen(command, NAME, "--cluster", "local")
    assert (done.returncode, done.stderr) == (
        2, f"{NAME}: it belongs to nobody, who alone can cancel or resume it\n",
    )  # fmt: skip
    assert not run.cancelled_file.exists()
    assert [e.event for e in read_events(run)] == ["started"]


@pytest.mark.parametrize("how", ["lost", "cancelled", "finished"])
def test_following_a_log_ends_with_a_run_that_could_not_say_that_it_ended(
    project: Project, run: RunDir, how: str
) -> None:
    if how == "cancelled":
        run.cancelled_file.touch()
    elif how == "finished":
        (run.attempt_dir(1) / "outcome.json").write_text('{"status":"finished","time":1}\n')
    done = project.xgen("logs", "-f", NAME, "--cluster", "local", timeout=20)
    assert (done.returncode, done.stdout) == (0, "0: so far\n")
    said = {"lost": f"{NAME} is lost: its supervisor is gone; write xgen resume\n"}
    assert done.stderr == said.get(how, "")


def test_a_cancel_is_always_an_event(project: Project, run: RunDir, tmp_path: Path) -> None:
    """Also of a job that runs: it may have decided to be requeued, and then nothing comes after it."""
    (run.path / "local").rmdir()
    for name, text in (("squeue", f'echo "7|{NAME}|RUNNING|None|gpu|n1|N/A|0|"'), ("scancel", 'echo "$@" >"$0.args"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = project.xgen("cancel", NAME, "--cluster", "local", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert (done.returncode, done.stdout) == (0, f"{NAME} was running, job 7; cancelled\n")
    assert (tmp_path / "scancel.args").read_text() == f"--user={os.getuid()} --name={NAME}\n"
    assert [(e.event, e.writer) for e in read_events(run)] == [("started", "host"), ("cancelled", "client")]


def test_of_two_resumes_at_once_the_second_waits_and_sees_the_first(project: Project, run: RunDir) -> None:
    run.spec_file.write_text(HELLO.replace("[echo, hi]", "[sleep, '60']"))
    try:
        with (run.path / ".resume.lock").open("w") as first, ThreadPoolExecutor() as pool:
            fcntl.flock(first, fcntl.LOCK_EX)
            second = pool.submit(project.xgen, "resume", NAME, "--cluster", "local")
            time.sleep(2)
            assert not second.done()
            local.start(run, {0: "sleep 60"}, {})
            fcntl.flock(first, fcntl.LOCK_UN)
        done = second.result()
        assert (done.returncode, done.stderr) == (2, f"{NAME} is running as job 7: nothing to resume\n")
    finally:
        local.send(run, signal.SIGTERM)
        wait_until(lambda: not local.is_alive(run), lambda: "the end of the run")


def test_the_timeline_says_in_words_why_an_attempt_ended_and_how_the_next_one_comes(run: RunDir) -> None:
    host = EventWriter(run, "host", 1, "7")
    host.write("requeued", reason="preempted", action="requeue")
    host.write("requeued", reason="time_limit", action="successor", seconds=60)
    host.write("held")
    lines = [line.partition(" s  ")[2] for line in timeline(read_events(run))]
    assert lines[1:] == [
        "requeued             attempt 1, preempted",
        "requeued             attempt 1, came to its time limit, as a successor, in 1m00s",
        "held                 attempt 1",
    ]


def test_a_command_without_a_checkpoint_resumes_from_its_beginning_and_no_step() -> None:
    job = Command(kind="command", name="demo", command=["w"], resources=Resources.model_validate({"time": "1h"}))
    assert [_from_where(job, 0, step, None) for step in (0, 7)] == ["from its beginning", "from step 7"]
