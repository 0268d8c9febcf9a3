"""What a comparison says, word by word, and what it will not say."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.evals.made import answers, evaluation, make_evaluation, make_training, record, training
from xgen.evals.compare import Comparison, compare, find_sides, write_comparison
from xgen.evals.compare.render import to_text
from xgen.evals.protocol import Record
from xgen.evals.published import rows
from xgen.runs import Refused, RunDir
from xgen.spec.evaluate import RULER_TASKS


def losses(seed: int, off: float, number: int = 400) -> list[float]:
    rng = random.Random(seed)
    return [2.0 + 3.0 / (1 + step / 20) + off + rng.gauss(0, 0.02) for step in range(number)]


def records(seed: int, skill: float) -> list[Record]:
    hard, luck = random.Random(7), random.Random(seed)

    def right(number: int, skill: float) -> list[int]:
        return [int(0.8 * hard.random() + 0.2 * luck.random() < skill) for _ in range(number)]

    found = []
    for task in ("niah_single_1", "vt"):
        for length in (4096, 8192):
            found += answers("ruler", task, length, right(100, skill))
    found += answers("harness", "MMLU", 0, right(200, 0.6))
    for at in range(10):
        found.append(record("perplexity", "books", 4096, at, 2.0 + at % 3 - skill / 10 + at / 1000))
    return found


def made(root: Path, **wide: Any) -> tuple[RunDir, RunDir]:
    """`wide` has another rate, a lower loss and is better at RULER."""
    base = make_training(root, "base-aaaaaa", training("base"), losses(1, 0.0))
    stage = {"name": "only", "tokens": "400k", "seq_len": 256, "global_batch": "1k", "lr": {"peak": 6e-3, "warmup": 10}}
    keys = {"stages": [stage], "data": {"store": str(base.path / "store")}, **wide}
    other = make_training(root, "wide-bbbbbb", training("wide", **keys), losses(2, -0.1))
    for run, off in ((base, 0.0), (other, -0.1)):
        line = {"step": 400, "tokens": 409_600, "domains": {"web": {"loss": 3.0 + off}, "code": {"loss": 2.0 + off}}}
        (run.metrics_dir / "validation.jsonl").write_text(json.dumps(line) + "\n")
    job = {"ruler": {"tasks": ["niah_single_1", "vt"], "lengths": [4096, 8192], "samples": 100}}
    make_evaluation(root, "eval-aaaaaa", evaluation(run="base-aaaaaa", **job), {400: records(1, 0.6)})
    make_evaluation(root, "eval-bbbbbb", evaluation(run="wide-bbbbbb", **job), {400: records(2, 0.8)})
    return base, other


def found_of(*runs: RunDir, **how: Any) -> Comparison:
    sides, unreadable = find_sides([(run, None) for run in runs])
    return compare(sides, unreadable=unreadable, **how)


def test_a_comparison_is_these_words(tmp_path: Path) -> None:
    lines = list(to_text(found_of(*made(tmp_path))))
    said = "\n".join(lines).replace(str(tmp_path), "/runs") + "\n"
    assert said == (Path(__file__).parent / "compare.txt").read_text()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80


def test_it_is_written_with_pictures_and_the_same_each_time(tmp_path: Path) -> None:
    runs = made(tmp_path)
    sides, _ = find_sides([(run, None) for run in runs])
    written = [write_comparison(compare(sides), sides, tmp_path / name) for name in ("a", "b")]
    assert [file.read_bytes() for file in written[0]] == [file.read_bytes() for file in written[1]]
    assert [file.name for file in written[0]] == ["compare.json", "compare.md", "loss.svg", "ruler.svg"]
    assert Comparison.model_validate_json(written[0][0].read_bytes()) == compare(sides)
    for file in written[0][2:]:
        assert ElementTree.parse(file).getroot().tag.endswith("svg")
        assert f"({file.name})" in written[0][1].read_text()


def test_a_step_that_is_named_ends_the_training_there(tmp_path: Path) -> None:
    base, other = made(tmp_path)
    sides, _ = find_sides([(base, 100), (other, 100)])
    found = compare(sides)
    assert [run.steps for run in found.runs] == [100, 100]
    assert found.pairs[0].training and found.pairs[0].training.losses[0].at == 100
    assert not found.pairs[0].scores  # nobody has evaluated them there


def test_a_step_that_nobody_trained_is_a_mistake(tmp_path: Path) -> None:
    base, other = made(tmp_path)
    sides, _ = find_sides([(base, 900), (other, None)])
    with pytest.raises(Refused, match="base-aaaaaa@900 is no step that was trained, the last being 400, nor one"):
        compare(sides)


def test_losses_a_token_of_other_vocabularies_are_not_compared_bits_a_byte_are(tmp_path: Path) -> None:
    tiny = training().model.model_dump() | {"vocab_size": 5000}
    base, other = made(tmp_path, model=tiny)
    (found,) = found_of(base, other).pairs
    assert found.training and not found.training.losses and not found.training.validation
    assert "their vocabularies differ" in found.training.why_not
    held_out = {"domains": [{"name": "web", "num_documents": 1, "num_tokens": 100, "num_bytes": 400}]}
    meta = {
        "version": 2, "recipe": "", "vocab_size": 4096, "token_type": "uint16", "end_of_text": 0, "num_tokens": 100,
        "num_documents": 1, "sources": [], "parts": [], "files": {}, **held_out,
    }  # fmt: skip
    (tmp_path / "held-out").mkdir()
    (tmp_path / "held-out/meta.json").write_text(json.dumps(meta))
    third = tmp_path / "third"
    third.mkdir()
    validation = {"store": str(tmp_path / "held-out")}
    first = make_training(third, "base-aaaaaa", training("base", validation=validation), losses(1, 0))
    second = make_training(third, "wide-bbbbbb", training("wide", validation=validation, model=tiny), losses(2, 0))
    for run in (first, second):
        (run.metrics_dir / "validation.jsonl").write_text((base.metrics_dir / "validation.jsonl").read_text())
    (found,) = found_of(first, second).pairs
    assert found.training
    (web,) = found.training.validation
    assert web.bits and web.bits[0] == pytest.approx(3.0 / 0.6931471805599453 / 4)


def test_trainings_of_two_kinds_have_no_loss_in_common(tmp_path: Path) -> None:
    (first, other), _ = find_sides([(run, None) for run in made(tmp_path)])
    assert other.job
    stranger = replace(other, job=other.job.model_copy(update={"kind": "sft"}))
    (pair,) = compare([first, stranger]).pairs
    assert pair.training and not pair.training.losses
    assert pair.training.why_not == "the loss of pretrain and that of sft are not of the same thing"


def test_only_what_is_asked_for_is_compared(tmp_path: Path) -> None:
    runs = made(tmp_path)
    (pair,) = found_of(*runs, metrics=["ruler/vt/*"]).pairs
    assert [one.key for one in pair.scores] == ["ruler/vt/4096", "ruler/vt/8192"]
    assert all(one.test and one.test.family == 2 for one in pair.scores)
    assert (pair.tasks, pair.training) == ((), None)
    (pair,) = found_of(*runs, metrics=["loss"]).pairs
    assert pair.training and pair.training.losses and not pair.scores
    with pytest.raises(Refused, match=r"--metric ruler/no/\*: none of them has it; write loss, validation/DOMAIN or"):
        found_of(*runs, metrics=["ruler/no/*"])


def test_runs_without_anything_in_common_are_told_what_is_missing(tmp_path: Path) -> None:
    base, _ = made(tmp_path)
    bare = make_training(tmp_path, "bare-cccccc", training("bare"), [3.0, 2.0])
    with pytest.raises(Refused, match=r"nothing of ruler/\* in common; evaluate bare-cccccc first"):
        found_of(base, bare, metrics=["ruler/*"])
    never = make_training(tmp_path, "none-dddddd", training("none"), [])
    with pytest.raises(Refused, match="none-dddddd has neither a step that was trained nor a score"):
        found_of(base, never)


def test_one_run_stands_beside_published_scores(tmp_path: Path) -> None:
    base, _ = made(tmp_path)
    nothing = found_of(base, published=rows(["Qwen3-4B"]))
    assert any("published" in note for note in nothing.notes) and not nothing.published
    published = rows(["Qwen3-4B", "xGen-small-4B"])
    assert {one.key for one in found_of(base, published=published).published} == {"harness/MMLU/0"}  # of two tasks
    others = [task for task in RULER_TASKS if task not in ("niah_single_1", "vt")]
    more = [answers("ruler", task, length, [1, 0] * 10) for task in others for length in (4096, 8192)]
    job = evaluation(run="base-aaaaaa", ruler={"tasks": ["vt"], "lengths": [4096]})
    make_evaluation(tmp_path, "eval-dddddd", job, {500: [*records(1, 0.6), *chain(*more)]})
    found = found_of(base, published=published)
    assert {(one.model, one.key) for one in found.published} == {
        ("Qwen3-4B", "ruler/average/4096"), ("Qwen3-4B", "ruler/average/8192"), ("xGen-small-4B", "harness/MMLU/0")
    }  # fmt: skip
    below = next(one for one in found.published if one.key == "ruler/average/4096")
    assert below.verdict == "worse" and below.test.family == 3
    assert not any("published" in note for note in found.notes)
    said = "\n".join(to_text(found))
    assert "other texts, prompts and harnesses may" in said.replace("\n    ", " ")
    assert "Sources of the published scores" in said


def test_two_checkpoints_of_one_training_have_no_loss_to_compare(tmp_path: Path) -> None:
    base, _ = made(tmp_path)
    make_evaluation(tmp_path, "eval-cccccc", evaluation(run="base-aaaaaa"), {200: records(5, 0.4)})
    sides, _ = find_sides([(base, 200), (base, 400)])
    (pair,) = compare(sides).pairs
    assert pair.training is None
    assert {one.verdict for one in pair.scores if one.suite == "ruler"} == {"better"}


def test_an_evaluation_that_goes_on_is_said_to(tmp_path: Path) -> None:
    runs = made(tmp_path)
    (tmp_path / "eval-aaaaaa/evaluation/step-400/scores.json").unlink()
    assert found_of(*runs).notes == (
        "An evaluation of base-aaaaaa is not complete: its scores are of the samples that are there.",
    )
