"""An evaluation that is told to stop ends in seconds, whatever it is at."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.evals.scripted import Bench, reap, wait_for
from xgen.cli import task_evaluate
from xgen.cli.task_evaluate import ends_in_time
from xgen.runs import RankOutcome, TaskContext


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TaskContext:
    monkeypatch.setattr(task_evaluate, "PATIENCE", 0.5)
    context = replace(Bench(tmp_path).context(), attempt=3)
    context.run.attempt_dir(3).mkdir(parents=True)
    return context


def begin(context: TaskContext, seconds: float) -> int:
    """A process that is at one sample for so long."""
    pid = os.fork()
    if pid:
        wait_for((context.run.path / "begun").exists)
        return pid
    try:
        context.stop.arm()
        with ends_in_time(context):
            (context.run.path / "begun").touch()
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(0.01)
        os._exit(7)
    finally:
        os._exit(1)


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_sample_that_takes_long_does_not_use_up_the_grace(context: TaskContext, number: signal.Signals) -> None:
    pid = begin(context, seconds=60)
    os.kill(pid, number)
    assert reap(pid, timeout=20) == 0
    outcome = RankOutcome.model_validate_json((context.run.attempt_dir(3) / "outcome.0.json").read_bytes())
    assert (outcome.status, outcome.reason) == ("stopped", f"after {number.name}")


def test_one_that_ends_soon_after_the_stop_ends_by_itself(context: TaskContext) -> None:
    pid = begin(context, seconds=0.3)
    os.kill(pid, signal.SIGUSR2)
    assert reap(pid, timeout=20) == 7
    assert not (context.run.attempt_dir(3) / "outcome.0.json").exists()


def test_without_a_stop_nothing_ends(context: TaskContext) -> None:
    assert reap(begin(context, seconds=1.5), timeout=20) == 7
