"""What is to be scored while a training goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.evals.scripted import Bench
from tests.train.folders import save
from xgen.evals import checkpoints
from xgen.evals.checkpoints import Wanted
from xgen.runs import EventWriter


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    bench.save(2, 4)
    bench.checkpoints = {"run": bench.source.name, "every": 2, "follow": True}
    return bench


def wanted(bench: Bench) -> Wanted:
    return Wanted(bench.job, bench.run)


def test_what_was_deleted_before_the_evaluation_began_is_no_part_of_it(bench: Bench) -> None:
    shutil.rmtree(bench.source.checkpoints_dir / "step-2")
    bench.source.ended_file.touch()
    assert wanted(bench).ready() == ([4], True)


def test_a_step_that_is_told_of_and_not_listed_yet_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another node's listing of a folder may be a minute old, where it reads a file anew."""
    following = wanted(bench)
    EventWriter(bench.source, "rank0", 1, "1").write("checkpoint_durable", step=6)
    bench.source.ended_file.touch()
    assert following.ready() == ([2, 4], False)
    save(bench.source, 6)
    assert following.ready() == ([2, 4, 6], True)
    shutil.rmtree(bench.source.checkpoints_dir / "step-6")
    monkeypatch.setattr(checkpoints, "LISTED_AFTER", 0.0)
    assert following.ready() == ([2, 4, 6], True)
    assert not following.is_there(6)
    assert "had deleted it before it was scored" in following.why_gone(6)


def test_named_steps_are_taken_up_as_they_come_and_missed_at_the_end(bench: Bench) -> None:
    bench.checkpoints |= {"steps": [4, 7, 8]}
    del bench.checkpoints["every"]
    following = wanted(bench)
    assert following.ready() == ([4], False)
    bench.save(8)
    assert following.ready() == ([4, 8], False)
    bench.source.ended_file.touch()
    assert following.ready() == ([4, 7, 8], True)
    assert following.why_gone(7) == (
        "nano-aaaaaa has ended without it; it saves every `checkpoint.every` steps and at its end"
    )


def test_a_checkpoint_that_was_set_aside_is_said_to_be(bench: Bench) -> None:
    following = wanted(bench)
    folder = bench.source.checkpoints_dir / "step-4"
    folder.rename(folder.with_name("step-4.rejected-2"))
    assert following.why_gone(4) == "it was set aside as step-4.rejected-2 of nano-aaaaaa"


def test_the_first_shard_decides_what_the_newest_is(bench: Bench) -> None:
    bench.checkpoints = bench.source.name
    assert wanted(bench).ready() == ([4], True)
    bench.save(6)
    assert wanted(bench).ready() == ([4], True)
    shutil.rmtree(bench.run.evaluation_dir)
    assert wanted(bench).ready() == ([6], True)
