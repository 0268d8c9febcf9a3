"""Ranks that stand still in every way, and what is said of them. No torch: the trainer has a test of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import ROOT
from xgen.runs import RunDir, read_events
from xgen.runs.outcome import read_rank_outcomes

RANK = Path(__file__).with_name("rank.py")


@dataclass
class Ranks:
    """Of one attempt of a run."""

    run: RunDir
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *ways: str, limit: float = 0.6, dump_time: float = 60.0) -> None:
        for rank, how in enumerate(ways):
            words = map(str, (RANK, self.run.path, rank, len(ways), limit, how, dump_time))
            command = [sys.executable, *words]
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            self.processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        for process in self.processes:
            assert process.stdout
            assert process.stdout.readline() == "stands\n"

    def ended(self, rank: int) -> int:
        return self.processes[rank].wait(timeout=90)

    def hang(self, name: str) -> str:
        return (self.run.attempt_dir(1) / "hang" / name).read_text()

    @property
    def said(self) -> tuple[int, str]:
        ((rank, outcome),) = read_rank_outcomes(self.run, 1).items()
        assert outcome.status == "crashed"
        return rank, outcome.reason


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[Ranks]:
    run = RunDir(tmp_path / "job-aaaaaa")
    run.create()
    run.attempt_dir(1).mkdir()
    made = Ranks(run)
    yield made
    for process in made.processes:
        process.kill()
        process.wait(10)


def test_the_rank_that_does_not_come_is_told_from_those_that_wait(ranks: Ranks) -> None:
    ranks.start("waits", "lock", "waits")
    assert [ranks.ended(rank) for rank in range(3)] == [-signal.SIGKILL] * 3
    rank, reason = ranks.said
    assert rank == 1
    assert reason.startswith("hung: no step for 1 s in phase train at step 1")
    assert "rank 1 on " in reason
    assert f"rank.py:{_line('# the planted line')} holds_the_lock" in reason
    assert "ranks 0,2 at " in reason
    summary = ranks.hang("summary.txt")
    assert summary.splitlines()[2].startswith("1 of 3 ranks: 1  <- the others wait for this one")
    assert f"rank.py:{_line('# the planted line')} holds_the_lock" in summary.splitlines()[3]
    (event,) = [event for event in read_events(ranks.run) if event.event == "hang"]
    assert (event.reason, event.step, event.attempt, event.job_id) == (reason, 11, 1, "7")
    # The host finds the status by its text, and the reason by what follows it.
    written = (ranks.run.attempt_dir(1) / "outcome.1.json").read_text()
    assert written.startswith('{"status":"crashed","reason":"hung: ')
    assert '","step":11,"time":' in written


def test_a_rank_that_was_stopped_by_a_signal_says_where(ranks: Ranks) -> None:
    ranks.start("waits", "stopped")
    assert [ranks.ended(rank) for rank in range(2)] == [-signal.SIGKILL] * 2
    rank, reason = ranks.said
    assert rank == 1
    assert "was stopped at " in reason
    assert f"rank.py:{_line('os.kill(os.getpid(), signal.SIGSTOP)')} main" in reason
    assert ranks.hang("rank-1.txt").splitlines()[2] == "T: the rank was stopped by a signal"


def test_a_rank_in_uninterruptible_sleep_is_named_by_its_state(ranks: Ranks) -> None:
    ranks.start("waits", "kernel")
    assert [ranks.ended(rank) for rank in range(2)] == [-signal.SIGKILL] * 2
    rank, reason = ranks.said
    assert rank == 1
    assert "waits in the kernel at " in reason
    assert "waits_in_the_kernel" in reason
    assert "vfork" in ranks.hang("rank-1.txt")


def test_a_frozen_node_does_not_keep_the_others_from_ending(ranks: Ranks) -> None:
    ranks.start("waits", "frozen", dump_time=3.0)
    assert ranks.ended(0) == -signal.SIGKILL
    rank, reason = ranks.said
    assert rank == 0  # who has spoken for the attempt
    assert "; no word of rank 1" in reason
    assert ranks.hang("summary.txt").splitlines()[2] == "no word of rank 1"


def test_a_collective_that_gives_up_before_any_limit_finds_who_did_not_come(ranks: Ranks) -> None:
    ranks.start("times out", "lock", limit=600.0)
    assert [ranks.ended(rank) for rank in range(2)] == [-signal.SIGKILL] * 2
    rank, reason = ranks.said
    assert rank == 1
    assert "holds_the_lock" in reason
    assert "rank 0 at " in reason


def test_one_that_moves_is_left_alone_and_its_watchdog_ends_with_it(ranks: Ranks) -> None:
    ranks.start("moves", limit=1.0)
    pid = ranks.processes[0].pid
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    time.sleep(2.5)
    assert ranks.processes[0].poll() is None
    assert not (ranks.run.attempt_dir(1) / "hang").exists()
    assert len(children) == 1
    ranks.processes[0].kill()
    ranks.ended(0)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{children[0]}").exists() and "xgen/hang" in _command_line(children[0]):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _line(text: str) -> int:
    return next(number for number, line in enumerate(RANK.read_text().splitlines(), 1) if text in line)
