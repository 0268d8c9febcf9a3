"""Rollout servers on the local executor: beside the trainer, each with a supervisor of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.rollout_runs import answers, assert_every_answer_once, submit_rollout
from tests.cluster_unit.conftest import Bench, assert_all_gone, events, exit_code, status, tell, wait_until
from tests.conftest import xgen
from xgen.cluster import local
from xgen.runs import RunDir, read_events
from xgen.runs.shards import finished_shards


def start(bench: Bench, steps: int, pause: float = 0.002, **keys: Any) -> RunDir:
    run = submit_rollout(bench.path, bench.path / "local.yaml", steps=steps, pause=pause, **keys)
    bench.runs.append(run)
    return run


def supervisors(run: RunDir) -> dict[int, int]:
    """Process id by shard of those of the servers."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if "xgen.cluster.local_supervisor" in words and str(run.path) in words and len(words) > 6:
            found[int(words[-2])] = int(folder.name)
    return found


def wait_for_answers(run: RunDir, number: int) -> None:
    wait_until(lambda: len(answers(run)) >= number, lambda: f"{number} answers: {tell(run)}", 90)


def test_servers_and_trainer_run_beside_each_other_and_end_together(bench: Bench) -> None:
    run = start(bench, steps=3)
    assert exit_code(run) == 0, tell(run)
    assert_every_answer_once(run, steps=3)
    assert [e.event for e in read_events(run) if e.writer == "host"] == ["started", "exited", "finished"]
    assert finished_shards(run, "rollout") == {0, 1}
    assert [status(run.shard("rollout", shard), 1) for shard in (0, 1)] == ["finished", "finished"]
    assert_all_gone(run)


@pytest.mark.slow
def test_a_server_and_the_trainer_are_each_preempted_alone_and_no_answer_is_lost(bench: Bench) -> None:
    run = start(bench, steps=12, pause=0.01)
    wait_for_answers(run, 6)
    os.kill(supervisors(run)[0], signal.SIGUSR2)
    shard = run.shard("rollout", 0)
    wait_until(lambda: len(events(shard, "started")) == 2, lambda: tell(shard), 60)
    assert (status(shard, 1), len(events(run, "started"))) == ("stopped", 1)
    servers = supervisors(run)
    assert local.send(run, signal.SIGUSR2)  # to all that it has
    wait_until(lambda: len(events(run, "started")) == 2, lambda: tell(run), 60)
    assert exit_code(run) == 0, tell(run)
    assert_every_answer_once(run, steps=12)
    assert len(servers) == 2


@pytest.mark.slow
def test_when_the_trainer_fails_for_good_the_servers_end_and_a_resume_starts_all_anew(bench: Bench) -> None:
    run = start(bench, steps=8, pause=0.005, restart={"max_failures": 1})
    wait_for_answers(run, 6)
    (run.path / "crash").touch()
    assert exit_code(run) != 0
    assert_all_gone(run)
    assert finished_shards(run, "rollout") == {0, 1}
    (run.path / "crash").unlink()
    done = xgen("resume", run.name, "--cluster", str(bench.path / "local.yaml"), cwd=bench.path)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: events(run, "finished"), lambda: tell(run), 90)
    assert_every_answer_once(run, steps=8)


def test_cancelling_the_run_ends_the_servers(bench: Bench) -> None:
    run = start(bench, steps=1000)
    wait_for_answers(run, 6)
    done = xgen("cancel", run.name, "--cluster", str(bench.path / "local.yaml"), cwd=bench.path)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not local.is_alive(run), lambda: tell(run), 60)
    assert_all_gone(run)
    assert events(run, "finished") == []
