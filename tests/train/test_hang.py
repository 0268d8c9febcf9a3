"""A rank that hangs amid a training: where it stood is on record, and the training goes on to the same end."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.train.conftest import STEPS, Training
from tests.train.test_resume import assert_same
from xgen.runs import RunDir, read_events
from xgen.runs.flight import collectives, flight_folder
from xgen.runs.outcome import read_rank_outcomes

_AT = 5


def planted() -> None:
    threading.Event().wait()  # the planted line


def plant(rank: int) -> None:
    """Rank 1 does not come to the collectives of a step."""
    if rank != 1:
        return
    from xgen.train.trainer import JobTrainer

    own = JobTrainer._forward_backward

    def stands(self: JobTrainer, data: Any) -> Any:
        if self.step == _AT:
            planted()
        return own(self, data)

    JobTrainer._forward_backward = stands


@pytest.fixture(scope="module")
def hung(_warm: None, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Its first attempt has hung and been ended."""
    training = Training(RunDir(tmp_path_factory.mktemp("hung") / "nano-aaaaaa"))
    training.change("hang", {"limit": "15s"})
    training.go(in_rank=plant, may_die=True)
    return training


def test_a_hang_leaves_which_collective_each_rank_was_in(hung: Training) -> None:
    said = collectives(hung.run, 1)
    assert said
    assert said[0].startswith("gloo group 0 default_pg: rank 1 behind, after ")
    assert "; rank 0 in all_reduce " in said[0]
    folder = flight_folder(hung.run, 1) / "gloo"
    assert sorted(path.name for path in folder.iterdir()) == ["rank_0", "rank_1"]


def test_a_hung_rank_is_named_with_its_line_and_the_next_attempt_ends_as_if_nothing_had_been(
    hung: Training, undisturbed: Training
) -> None:
    training = hung
    ((rank, outcome),) = read_rank_outcomes(training.run, 1).items()
    line = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "# the planted line" in text)
    assert (rank, outcome.status, outcome.step) == (1, "crashed", _AT - 1)
    assert outcome.reason.startswith("hung: no step for ")
    assert f"in phase train at step {_AT - 1}; rank 1 on " in outcome.reason
    assert f"train/test_hang.py:{line} planted" in outcome.reason
    hang = training.run.attempt_dir(1) / "hang"
    assert sorted(file.name for file in hang.glob("rank-*.txt")) == ["rank-0.txt", "rank-1.txt"]
    groups = (hang / "summary.txt").read_text().split("\n\n")
    assert groups[1].startswith("1 of 2 ranks: 1  <- the others wait for this one\n")
    assert groups[2].startswith("1 of 2 ranks: 0, which wait for others\n")
    assert [event.attempt for event in read_events(training.run) if event.event == "hang"] == [1]
    assert {outcome.status for outcome in training.go()} == {"finished"}
    assert training.steps() == [*range(1, _AT), *range(_AT, STEPS + 1)]
    assert_same(training, undisturbed)
