"""Which evaluations speak for a training: found by scanning its neighbours, the newest for each suite."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.evals.made import answers, evaluation, make_evaluation, make_run, make_training, training
from xgen.evals.compare.found import find_sides, scan
from xgen.runs import Refused, RunDir


def made(root: Path) -> RunDir:
    """A training that three evaluations speak of, of which the last began last."""
    run = make_training(root, "train-aaaaaa", training(), [3.0, 2.0])
    old, new = (answers("ruler", "vt", 1024, right) for right in ([0, 0], [1, 1]))
    for at, (name, steps) in enumerate(
        {
            "eval-old111": {100: old, 200: old},
            "eval-new222": {100: new},
            "know-333333": {100: answers("harness", "MMLU", 0, [1, 0])},
        }.items()
    ):
        found = make_evaluation(root, name, evaluation(), steps)
        os.utime(found.spec_file, (1000 + at, 1000 + at))
    make_evaluation(root, "eval-zzzzzz", evaluation(run="train-bbbbbb"), {100: old})
    return run


def test_the_newest_evaluation_of_each_suite_speaks(tmp_path: Path) -> None:
    run = made(tmp_path)
    ((side,), unreadable) = find_sides([(run, 100)])
    assert {suite: one.run.name for suite, one in side.evaluations.items()} == {
        "ruler": "eval-new222", "harness": "know-333333"
    }  # fmt: skip
    assert sorted((one.suite, one.score) for one in side.records) == [
        ("harness", 0.0), ("harness", 1.0), ("ruler", 1.0), ("ruler", 1.0)
    ]  # fmt: skip
    assert (side.name, unreadable) == ("train-aaaaaa@100", 0)


def test_without_a_step_the_newest_that_is_scored_whole_is_taken(tmp_path: Path) -> None:
    run = made(tmp_path)
    (tmp_path / "eval-new222/evaluation/step-300").mkdir()
    line = answers("ruler", "vt", 1024, [1])[0].model_dump_json() + "\n"
    (tmp_path / "eval-new222/evaluation/step-300/0.jsonl").write_text(line)
    ((side,), _) = find_sides([(run, None)])
    assert (side.name, side.step, side.until) == ("train-aaaaaa", 200, None)
    assert {one.run.name for one in side.evaluations.values()} == {"eval-old111"}


def test_an_evaluation_that_is_named_speaks_alone_and_brings_its_training(tmp_path: Path) -> None:
    run = made(tmp_path)
    ((side,), _) = find_sides([(RunDir(tmp_path / "eval-old111"), 100)])
    assert side.training == run and {one.score for one in side.records} == {0.0}
    gone = make_evaluation(
        tmp_path, "eval-gone00", evaluation(run="gone-aaaaaa"), {5: answers("ruler", "vt", 1024, [1])}
    )
    ((side,), _) = find_sides([(gone, None)])
    assert (side.name, side.training, len(side.records)) == ("gone-aaaaaa", None, 1)


def test_two_evaluations_of_one_training_have_names_of_their_own(tmp_path: Path) -> None:
    made(tmp_path)
    old, new = (RunDir(tmp_path / name) for name in ("eval-old111", "eval-new222"))
    sides, _ = find_sides([(old, None), (new, None)])
    assert [side.name for side in sides] == ["train-aaaaaa by eval-old111", "train-aaaaaa by eval-new222"]
    with pytest.raises(Refused, match="train-aaaaaa by eval-old111 is named twice"):
        find_sides([(old, None), (old, None)])


def test_what_neither_trains_nor_evaluates_is_refused(tmp_path: Path) -> None:
    run = made(tmp_path)
    empty = make_run(tmp_path, "eval-empty0", evaluation())
    with pytest.raises(Refused, match="eval-empty0 has no scores; xgen status eval-empty0 says how far it is"):
        find_sides([(run, None), (empty, None)])
    with pytest.raises(Refused, match="eval-old111 has no scores of step 7; its checkpoints are 100, 200"):
        find_sides([(RunDir(tmp_path / "eval-old111"), 7)])


def test_files_that_are_torn_and_runs_of_others_stop_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path)
    (tmp_path / "eval-new222/spec.yaml").write_text("kind: evaluate\nname: [train-aaaaaa")
    (tmp_path / "junk-123456").write_text("no folder")
    (tmp_path / "bare-123456").mkdir()
    theirs = make_evaluation(tmp_path, "eval-theirs", evaluation(), {100: answers("ruler", "vt", 1024, [1])})
    is_dir = Path.is_dir

    def forbidden(path: Path) -> bool:
        if path == theirs.evaluation_dir:
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", forbidden)
    found = scan(tmp_path, {"train-aaaaaa"})
    assert [one.run.name for one in found.found["train-aaaaaa"]] == ["eval-old111", "know-333333"]
    assert found.unreadable == 1


def test_ten_thousand_runs_are_scanned_in_a_moment(tmp_path: Path) -> None:
    made(tmp_path)
    spec = (tmp_path / "train-aaaaaa/spec.yaml").read_text()
    for number in range(10_000):
        (tmp_path / f"other-{number:06}").mkdir()
        (tmp_path / f"other-{number:06}/spec.yaml").write_text(spec)
    other = (tmp_path / "eval-zzzzzz/spec.yaml").read_text()
    for number in range(200):
        (tmp_path / f"eval-{number:06}/evaluation").mkdir(parents=True)
        (tmp_path / f"eval-{number:06}/spec.yaml").write_text(other)
    began = time.process_time()
    found = scan(tmp_path, {"train-aaaaaa"})
    assert time.process_time() - began < 2.0
    assert len(found.found["train-aaaaaa"]) == 3
