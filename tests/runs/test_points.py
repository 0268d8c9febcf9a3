"""A point of a sweep is judged by what it and the others have written."""

from __future__ import annotations

import json
import math
from pathlib import Path

from xgen.runs import EventWriter, RunDir
from xgen.runs.points import Rule, ended_by, judge, pass_milestone, read_values, read_verdict, select

HALF = Rule("loss", highest=False, at=(10, 20), keep=0.5, least=3)


def shard(tmp_path: Path, number: int = 0) -> RunDir:
    run = RunDir(tmp_path / "sweep-abc234").shard("", number)
    run.create()
    return run


def record(run: RunDir, name: str, *lines: object) -> None:
    (run.metrics_dir / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_best_half_goes_on_once_enough_have_come() -> None:
    assert judge(HALF, 10, 9.0, []).kept
    assert judge(HALF, 10, 9.0, [1.0]).kept  # two are too few to tell
    assert not judge(HALF, 10, 9.0, [1.0, 2.0]).kept
    assert judge(HALF, 10, 1.5, [1.0, 2.0]).kept
    assert (judge(HALF, 10, 1.5, [1.0, 2.0]).place, judge(HALF, 10, 1.5, [1.0, 2.0]).of) == (2, 3)


def test_what_is_not_finite_is_the_worst_either_way() -> None:
    assert not judge(HALF, 10, math.nan, [1.0, 2.0, 3.0]).kept
    highest = Rule("accuracy", highest=True, at=(10,), keep=0.5, least=2)
    assert not judge(highest, 10, math.inf, [1.0, 2.0]).kept
    assert judge(highest, 10, 3.0, [1.0, 2.0]).kept


def test_the_best_one_always_goes_on() -> None:
    strict = Rule("loss", highest=False, at=(10,), keep=0.01, least=2)
    assert judge(strict, 10, 1.0, [2.0] * 50).kept
    assert not judge(strict, 10, 1.1, [1.0] * 50).kept


def test_a_verdict_is_written_once_and_known_to_the_next_attempt(tmp_path: Path) -> None:
    runs = [shard(tmp_path, number) for number in range(4)]
    verdicts = [
        pass_milestone(run, HALF, 10, value) for run, value in zip(runs, (1.0, 2.0, 3.0, math.nan), strict=True)
    ]
    assert [one.kept for one in verdicts] == [True, True, False, False]
    assert pass_milestone(runs[2], HALF, 10, 0.5).value == 3.0  # the same step again, after a restart
    assert [ended_by(run, HALF) is not None for run in runs] == [False, False, True, True]
    found = read_verdict(runs[3], 10)
    assert found is not None
    assert math.isnan(found.value)
    assert read_verdict(runs[3], 20) is None


def test_of_a_step_that_was_done_twice_the_last_counts_and_a_torn_line_does_not(tmp_path: Path) -> None:
    run = shard(tmp_path)
    record(
        run,
        "steps.jsonl",
        {"step": 1, "loss": 5.0},
        {"step": 2, "loss": None},
        {"step": 1, "loss": 4.0, "extra": {"kl": 2}},
    )
    with (run.metrics_dir / "steps.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    (first, value), (second, nan) = read_values(run, "loss")
    assert (first, value, second) == (1, 4.0, 2)
    assert math.isnan(nan)
    assert read_values(run, "kl") == [(1, 2.0)]
    assert read_values(run, "loss", newest=True)[0] == (1, 4.0)


def test_a_held_out_loss_is_that_of_a_domain_or_the_mean_of_all(tmp_path: Path) -> None:
    run = shard(tmp_path)
    record(run, "validation.jsonl", {"step": 5, "domains": {"a": {"loss": 2.0}, "b": {"loss": 4.0}}})
    assert read_values(run, "validation") == [(5, 3.0)]
    assert read_values(run, "validation.b") == [(5, 4.0)]
    assert read_values(run, "validation.c") == []


def test_a_number_of_a_command_and_a_score_of_an_evaluation(tmp_path: Path) -> None:
    run = shard(tmp_path)
    (run.path / "result.json").write_text('{"accuracy": {"top1": 0.5, "name": "x"}, "ok": true}')
    assert read_values(run, "accuracy.top1") == [(0, 0.5)]
    assert read_values(run, "accuracy.name") == read_values(run, "ok") == read_values(run, "none") == []
    EventWriter(run, "host", 1, "1").write("evaluated", step=7, scores={"ruler/niah/4096": 0.9})
    assert read_values(run, "ruler/niah/4096") == [(7, 0.9)]


def test_the_last_the_best_and_the_value_at_a_step() -> None:
    values = [(1, 3.0), (2, math.nan), (4, 1.0), (5, 2.0)]
    assert select(values, "last", False) == (5, 2.0)
    assert select(values, "best", False) == (4, 1.0)
    assert select(values, "best", True) == (1, 3.0)
    assert select(values, 4, False) == (4, 1.0)
    assert select(values, 6, False) is None
    assert select([], "best", False) is None
