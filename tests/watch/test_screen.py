"""What is on the screen comes from the files of runs, as they grow."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Project, make_project
from tests.terminal import Terminal
from xgen.runs import EventWriter, RunDir
from xgen.spec import dump, load_job
from xgen.watch.screen import Screen


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


def make_run(project: Project, name: str) -> RunDir:
    run = RunDir(project.runs / name)
    run.create()
    run.spec_file.write_text(dump(load_job(project.path / "train.yaml", []).job))
    run.profile_file.write_text((project.path / "slurm/clusters/local.yaml").read_text())
    EventWriter(run, "client", 0, "7").write("queued")
    EventWriter(run, "host", 1, "7").write("started", nodes="n1")
    (run.path / "local").mkdir()  # of the local executor, and its supervisor is gone
    return run


def train(run: RunDir, first: int, last: int) -> None:
    now = time.time()
    with (run.metrics_dir / "steps.jsonl").open("a") as file:
        for step in range(first, last + 1):
            record = {"step": step, "loss": 9.0 / step, "tokens": 512 * step, "seconds": 0.5}
            file.write(json.dumps(record | {"time": now - 0.5 * (last - step)}) + "\n")
    rank = EventWriter(run, "rank0", 1, "7")
    if first == 1:
        rank.write("first_step", step=1)
    rank.write("progress", step=last)


def test_a_frame_follows_the_files(project: Project) -> None:
    run = make_run(project, "train-aaaaaa")
    train(run, 1, 100)
    screen = Screen(project.runs, "local", None)
    (line,) = [line for line in screen.frame(100, 24).plain.split("\n") if "train-aaaaaa" in line]
    assert re.search(r" lost +100 +127% +█▂▁▁▁▁▁▁ 0.09 ", line)
    train(run, 101, 120)
    EventWriter(run, "rank0", 1, "7").write("checkpoint_durable", step=120)
    EventWriter(run, "host", 1, "7").write("failed", reason="rank 0: no more")
    text = screen.frame(100, 24).plain
    assert re.search(r"! train-aaaaaa +failed +120 +152% ", text)
    assert "failed: rank 0: no more" in text


def test_a_record_that_is_torn_or_none_harms_nothing(project: Project) -> None:
    run = make_run(project, "train-aaaaaa")
    train(run, 1, 50)
    with (run.metrics_dir / "steps.jsonl").open("ab") as file:
        file.write(
            b'[1]\n\xff\xfe\nnull\n{"step": "51", "tokens": 1, "seconds": null, "time": "noon"}\n{"step": 51, "lo'
        )
    assert " 50 " in Screen(project.runs, "local", ["train-aaaaaa"]).frame(100, 24).plain


def test_a_loss_that_another_program_writes_as_nan_is_no_number(project: Project) -> None:
    run = make_run(project, "train-aaaaaa")
    train(run, 1, 50)
    with (run.metrics_dir / "steps.jsonl").open("a") as file:
        file.write('{"step": 51, "tokens": 9, "seconds": 0.5, "time": 1e9, "loss": NaN}\n')
    screen = Screen(project.runs, "local", ["train-aaaaaa"])
    (fact,) = screen.facts()
    assert (fact["step"], fact["is_nan"]) == (51, True)
    assert all(loss > 0 for loss in fact["losses"])
    assert " NaN " in screen.frame(100, 24).plain


def test_without_a_terminal_it_prints_one_frame_and_as_json_all_facts(project: Project) -> None:
    train(make_run(project, "train-aaaaaa"), 1, 100)
    done = project.xgen("watch", "--cluster", "local")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "! train-aaaaaa" in done.stdout
    (fact,) = json.loads(project.xgen("watch", "train", "--cluster", "local", "--json").stdout)
    assert (fact["step"], fact["level"], fact["planned_steps"]) == (100, "wrong", 79)
    assert fact["planned_rate"] > 0


def test_in_a_terminal_it_lives_follows_the_windows_size_and_ends_with_ctrl_c(project: Project) -> None:
    train(make_run(project, "train-aaaaaa"), 1, 100)
    terminal = Terminal()
    child = subprocess.Popen(
        [sys.executable, "-m", "xgen.cli.main", "watch", "--cluster", "local", "--every", "3600"],
        cwd=project.path, stdin=terminal.fd, stdout=terminal.fd, stderr=terminal.fd, start_new_session=True,
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "80", "LINES": "24"},  # as a shell exports them
    )  # fmt: skip
    try:
        first = terminal.until("Ctrl-C leaves")
        assert "train-aaaaaa" in first
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", first)  # bold and dim stay
        terminal.resize(130, 40)
        child.send_signal(signal.SIGWINCH)
        terminal.until("what is wrong")
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0
    finally:
        child.kill()
        child.wait(60)
        terminal.close()
