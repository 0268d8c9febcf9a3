"""Which checkpoints a shard scores: those that a spec means, what became of them, and those that are yet to come."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.evals.scripted import Bench, StopAfter, nothing, reap, wait_for
from tests.train.folders import damage, save
from xgen.evals import checkpoints, worker
from xgen.evals.records import gone_of, step_folder, steps_of
from xgen.runs import Diverged, EventName, EventWriter, Refused


def test_the_newest_is_the_newest_of_the_first_attempt(bench: Bench) -> None:
    bench.checkpoints = bench.source.name
    stop = StopAfter(3)
    bench.during = stop.sample
    assert bench.go(stop=stop).status == "stopped"
    bench.save(8)
    bench.during = nothing
    assert bench.go().status == "finished"
    assert steps_of(bench.run) == [6]
    bench.assert_each_once(6)


@pytest.mark.parametrize(
    ("wanted", "steps"),
    [
        ({"steps": 4}, [4]),
        ({"steps": [6, 2]}, [2, 6]),
        ({"every": 4}, [4]),
        ({"every": 2, "first": 3}, [4, 6]),
        ({"every": 1, "last": 4}, [2, 4]),
    ],
)
def test_a_choice_of_checkpoints(bench: Bench, wanted: dict[str, object], steps: list[int]) -> None:
    bench.checkpoints = {"run": bench.source.name, **wanted}
    assert bench.go().status == "finished"
    assert steps_of(bench.run) == steps


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"steps": [4, 7]}, "steps: nano-aaaaaa has no complete checkpoint of step 7; write one of 2, 4, 6"),
        (
            {"every": 500},
            "every: none of 2, 4, 6, the steps of nano-aaaaaa, is a multiple of 500; write a divisor of one",
        ),
        (
            {"every": 2, "first": 8},
            "every: none of 2, 4, 6, the .* is a multiple of 2 from 8 on; write a divisor of one",
        ),
        ({"run": "none-aaaaaa"}, "run: .*none-aaaaaa is no run directory"),
    ],
)
def test_what_never_was_is_refused(bench: Bench, wanted: dict[str, object], said: str) -> None:
    bench.checkpoints = {"run": bench.source.name, **wanted}
    with pytest.raises(Refused, match=f"checkpoints.{said}"):
        bench.go()


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="nano-aaaaaa has no complete checkpoint; wait for its first one"):
        Bench(tmp_path).go()


@pytest.mark.parametrize("when", ["before it is opened", "before its weights are read", "while it is scored"])
def test_a_checkpoint_that_retention_takes_away_meanwhile_is_said_to_be_gone(bench: Bench, when: str) -> None:
    doomed = bench.source.checkpoints_dir / "step-4"

    def opened(step: int) -> None:
        if when == "before its weights are read" and step == 4:
            shutil.rmtree(doomed)

    def during(item: object) -> None:
        if when == "before it is opened":
            shutil.rmtree(doomed, ignore_errors=True)
        elif when == "while it is scored" and doomed.exists() and len(bench.lines(4)) == 30:
            shutil.rmtree(doomed)
            raise FileNotFoundError(doomed)  # of a suite that reads it again

    bench.opened, bench.during = opened, during
    assert bench.go().status == "finished"
    bench.assert_each_once(2, 6)
    assert list(gone_of(bench.run)) == [4]
    assert "`checkpoint.keep_every`" in gone_of(bench.run)[4]
    assert [event.step for event in bench.evaluated()] == [2, 6]
    assert len(bench.lines(4)) == (30 if when == "while it is scored" else 0)


def test_one_that_goes_while_it_is_scored_keeps_what_it_has_and_is_gone_for_the_other_shard(bench: Bench) -> None:
    assert bench.go(0, 2).status == "finished"
    shutil.rmtree(bench.source.checkpoints_dir / "step-4")
    assert bench.go(1, 2).status == "finished"
    assert list(gone_of(bench.run)) == [4]
    assert len(bench.lines(4)) == 20
    assert [event.step for event in bench.evaluated()] == [2, 6]
    # Brought back, it is scored to its end.
    save(bench.source, 4)
    (step_folder(bench.run, 4) / "init.json").unlink()
    assert bench.go(1, 2).status == "finished"
    bench.assert_each_once(2, 4, 6)
    assert gone_of(bench.run) == {}


def test_a_damaged_checkpoint_is_named_and_the_others_go_on(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    damage(bench.source.checkpoints_dir / "step-4")
    assert bench.go().status == "finished"
    bench.assert_each_once(2, 6)
    said = "it does not verify: __1_0.distcp: its checksum is not the manifest's"
    assert gone_of(bench.run) == {4: said}
    assert f"step 4 is left out: {said}" in capfd.readouterr().out


def test_weights_that_give_no_numbers_leave_the_other_checkpoints_to_be_scored(bench: Bench) -> None:
    opened: list[int] = []

    def during(item: object) -> None:
        if opened[-1] == 4:
            raise Diverged("ruler: the weights of version 0 give logits that are no numbers")

    bench.opened, bench.during = opened.append, during
    assert bench.go().status == "finished"
    bench.assert_each_once(2, 6)
    assert gone_of(bench.run) == {4: "ruler: the weights of version 0 give logits that are no numbers"}


def test_where_none_can_be_scored_the_job_is_refused(bench: Bench) -> None:
    bench.checkpoints = bench.source.name
    damage(bench.source.checkpoints_dir / "step-6")
    with pytest.raises(Refused, match="none could be scored; step 6: it does not verify"):
        bench.go()


def test_samples_of_other_weights_are_not_mixed_in(bench: Bench) -> None:
    stop = StopAfter(45)
    bench.during = stop.sample
    bench.go(stop=stop)
    shutil.rmtree(bench.source.checkpoints_dir / "step-4")
    save(bench.source, 4, loss=1.0)
    bench.during = nothing
    assert bench.go().status == "finished"
    assert len(bench.lines(4)) == 5
    assert "nano-aaaaaa@4 was saved anew since samples of it were scored" in gone_of(bench.run)[4]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "POLL", 0.05)
    monkeypatch.setattr(checkpoints, "LISTED_AFTER", 0.3)


@pytest.mark.parametrize("end", ["finished", "failed"])
def test_a_training_is_followed_until_its_end(bench: Bench, quick: None, end: EventName) -> None:
    bench.checkpoints = {"run": bench.source.name, "every": 4, "follow": True}
    pids = [bench.fork(shard, 2) for shard in (0, 1)]
    wait_for(lambda: len(bench.evaluated()) == 1)
    bench.save(8, 10)
    wait_for(lambda: len(bench.evaluated()) == 2)
    bench.save(12)
    EventWriter(bench.source, "host", 1, "1").write(end)
    bench.source.ended_file.touch()
    assert [reap(pid) for pid in pids] == [0, 0]
    assert steps_of(bench.run) == [4, 8, 12]
    bench.assert_each_once(4, 8, 12)
    assert "1 checkpoints are behind, and nano-aaaaaa goes on; waiting" in bench.log()


def test_who_follows_says_of_what_came_and_went_that_it_is_gone(bench: Bench, quick: None) -> None:
    bench.checkpoints = {"run": bench.source.name, "every": 4, "follow": True}
    bench.pause = 0.02
    pid = bench.fork()
    wait_for(lambda: bench.lines(4))
    bench.save(8, 12)
    shutil.rmtree(bench.source.checkpoints_dir / "step-8")
    bench.source.ended_file.touch()
    assert reap(pid) == 0
    bench.assert_each_once(4, 12)
    assert list(gone_of(bench.run)) == [8]


def test_who_follows_stops_at_once_and_goes_on_later(bench: Bench, quick: None) -> None:
    bench.checkpoints = {"run": bench.source.name, "steps": [6, 8, 9], "follow": True}
    pid = bench.fork()
    wait_for(bench.evaluated)
    began = time.monotonic()
    os.kill(pid, signal.SIGUSR2)
    assert reap(pid) == 75
    assert time.monotonic() - began < 1
    bench.save(8)
    bench.source.ended_file.touch()
    assert bench.go().status == "finished"
    bench.assert_each_once(6, 8)
    assert "has ended without it" in gone_of(bench.run)[9]
