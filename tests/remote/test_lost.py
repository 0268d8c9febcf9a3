"""A connection that is lost: logs go on without a line twice, and what was asked for is done once and told."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import HELLO
from tests.remote.conftest import Laptop
from tests.remote.test_commands import submitted
from xgen.runs import list_runs

COUNTS = HELLO.replace("gpus_per_node: 2", "gpus_per_node: 1").replace(
    "[echo, hi]",
    "[sh, -c, 'i=0; while [ ! -e {stop} ]; do i=$((i + 1)); echo line $i; sleep 0.1; done; echo all $i']",
)


def counts(stop: Path) -> str:
    return COUNTS.replace("{stop}", str(stop))


SECRETIVE = HELLO + "secrets: {ONE: {command: [ask-somebody]}}\n"


def wait_for(what: str, condition: Callable[[], object], timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout:.0f} s: {what}")
        time.sleep(0.1)


def far_ends(laptop: Laptop) -> list[str]:
    """Of this login: commands that wait for the laptop, or work for it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            home = f"HOME={laptop.login.folder}/home".encode() in (folder / "environ").read_bytes().split(b"\0")
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if home and b"far-end" in words:
            found.append(folder.name)
    return found


def test_logs_end_with_the_connection_and_go_on_after_a_restart_of_sshd_with_each_line_once(
    laptop: Laptop, tmp_path: Path
) -> None:
    (laptop.project.path / "counts.yaml").write_text(counts(tmp_path / "stop"))
    run = submitted(laptop, "counts.yaml")
    out, err = tmp_path / "out", tmp_path / "err"
    profile = ("--cluster", "slurm/clusters/local.yaml")  # of the laptop: it goes over
    follower = laptop.start("logs", "-f", run.name, *profile, stdout=out, stderr=err)

    def num_lines() -> int:
        return len(out.read_text().splitlines())

    wait_for("lines", lambda: num_lines() > 5)
    beside = laptop.xgen("status", run.name, *profile)  # the copy is free again
    assert (beside.returncode, beside.stderr) == (0, "")
    for gone in (1.5, 0.0):
        assert far_ends(laptop)
        laptop.login.stop()
        if gone:  # else the next connection comes before the end of the last one
            wait_for("the end of the far end", lambda: not far_ends(laptop), 60)
            time.sleep(gone)
        laptop.login.start()
        before = num_lines()
        wait_for("more lines", lambda before=before: num_lines() > before + 5)
    (tmp_path / "stop").touch()
    assert follower.wait(120) == 0
    *lines, last = out.read_text().splitlines()
    assert lines == [f"0: line {i}" for i in range(1, len(lines) + 1)]
    assert last == f"0: all {len(lines)}"
    said = err.read_text().splitlines()
    assert said.count("localhost: connected again") == 2
    assert said[0] == "localhost: the connection was lost; connecting again"
    wait_for("no far end left", lambda: not far_ends(laptop), 60)


def test_ctrl_c_reaches_the_command_which_ends_and_says_how_it_goes_on(laptop: Laptop, tmp_path: Path) -> None:
    (laptop.project.path / "counts.yaml").write_text(counts(tmp_path / "stop"))
    run = submitted(laptop, "counts.yaml")
    out, err = tmp_path / "out", tmp_path / "err"
    follower = laptop.start("logs", "-f", run.name, stdout=out, stderr=err)
    wait_for("lines", lambda: "line 3\n" in out.read_text())
    assert far_ends(laptop)
    follower.send_signal(signal.SIGINT)
    assert follower.wait(60) == 130
    last = err.read_text().splitlines()[-1]
    assert last.startswith(f"go on: xgen --host {laptop.host} logs -f {run.name} --after 1:")
    cancelled = laptop.xgen("cancel", run.name)
    assert (cancelled.returncode, cancelled.stderr) == (0, "")
    assert cancelled.stdout.startswith(f"{run.name} was running, job ")
    (tmp_path / "stop").touch()
    again = laptop.xgen("cancel", run.name)
    assert (again.returncode, again.stdout) == (2, "")
    wait_for("no far end left", lambda: not far_ends(laptop), 60)


def test_a_connection_that_is_lost_in_the_middle_of_a_submission_submits_once_and_tells_it(
    laptop: Laptop, tmp_path: Path
) -> None:
    # The cluster alone has this program, and it waits: the submission has begun, and nothing is submitted yet.
    programs = tmp_path / "programs"
    programs.mkdir()
    asker = programs / "ask-somebody"
    asker.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\nuntil [ -e {tmp_path}/answer ]; do sleep 0.1; done\necho x\n")
    asker.chmod(0o755)
    settings = laptop.login.settings
    settings["PATH"] = f"{programs}:{settings['PATH']}"
    laptop.login.stop()
    laptop.login.start()
    (laptop.project.path / "secretive.yaml").write_text(SECRETIVE)
    out, err = tmp_path / "out", tmp_path / "err"
    client = laptop.start("submit", "secretive.yaml", "--json", stdout=out, stderr=err)
    wait_for("the middle of a submission", (tmp_path / "asked").exists)
    laptop.login.stop()
    (tmp_path / "answer").touch()
    wait_for("notice", lambda: "the connection was lost" in err.read_text())
    laptop.login.start()
    assert client.wait(120) == 0
    told = json.loads(out.read_text())
    root = Path(told["path"]).parent
    assert [run.name for run in list_runs(root)] == [told["run"]]
    assert err.read_text().splitlines() == [
        "localhost: the connection was lost; connecting again",
        "localhost: connected again",
    ]
    sessions = laptop.login.folder / "home/.cache/xgen/remote/sessions"
    wait_for("nothing of it left", lambda: not list(sessions.iterdir()), 30)


def test_a_shared_connection_that_died_while_the_laptop_slept_is_made_anew(laptop: Laptop) -> None:
    laptop.login.drop()  # of other tests
    assert laptop.xgen("schema").returncode == 0
    (shared,) = laptop.login.connections()
    os.kill(shared, signal.SIGSTOP)  # what is sent to it stays without an answer
    try:
        done = laptop.xgen("status")
    finally:
        os.kill(shared, signal.SIGCONT)
    assert (done.returncode, done.stderr) == (0, "")
