"""The report of an evaluation says what is known, at any time, and the same records give the same bytes."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.evals.made import answers, evaluation, make_evaluation, record
from xgen.evals.protocol import Record
from xgen.evals.records import step_folder
from xgen.evals.report import Results, choose, collect, draw, write_report
from xgen.evals.report.render import to_text
from xgen.runs import Refused, RunDir
from xgen.spec import Evaluate

EVERYTHING = evaluation(
    needles={"lengths": [1024], "depths": 2, "samples": 2},
    recall={"lengths": [1024], "samples": 2},
    perplexity={"books": {"path": "books", "length": 1024, "documents": 2}},
    harness={"tasks": {"ARC-Challenge": 25}},
)


def everything(better: int = 0) -> list[Record]:
    found = []
    for task in ("niah_single_1", "vt"):
        found += answers("ruler", task, 1024, [1, 1, 1, 1], source="essays 1a2b")
        found += answers("ruler", task, 2048, [1, better, 0, 0], source="essays 1a2b")
    for number, depth in enumerate((0.0, 0.0, 1.0, 1.0)):
        found.append(record("needles", "needle", 1024, number, float(number != 2), depth=depth))
    found += answers("recall", "pairs", 1024, [1, 0])
    for number, nats in enumerate((2.0, 3.0)):
        bins = [(0, 512, 512 * nats), (512, 512, 512 * (nats - 1))]
        found.append(record("perplexity", "books", 1024, number, nats - 0.5, bins=bins))
    return found + answers("harness", "ARC-Challenge", 0, [1, 1, 0, 1])


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_evaluation(tmp_path, "eval-aaaaaa", EVERYTHING, {100: everything(), 200: everything(better=1)})


def text_of(run: RunDir, job: Evaluate, step: int | None = None, width: int = 80) -> list[str]:
    results = collect(run, job)
    return list(to_text(draw(results, choose(results, step))[0], width))


def test_a_report_is_these_words(run: RunDir, tmp_path: Path) -> None:
    write_report(collect(run, EVERYTHING), tmp_path / "out")
    assert (tmp_path / "out/results.md").read_text() == (Path(__file__).parent / "results.md").read_text()


def test_a_terminal_of_80_columns_shows_all_scores(run: RunDir) -> None:
    lines = text_of(run, EVERYTHING)
    assert "\n".join(lines) + "\n" == (Path(__file__).parent / "results.txt").read_text()
    assert max(map(len, lines)) <= 80


def test_pictures_are_whole_files_and_the_report_names_them(run: RunDir, tmp_path: Path) -> None:
    files = write_report(collect(run, EVERYTHING), tmp_path)
    pictures = [file for file in files if file.suffix == ".svg"]
    named = (tmp_path / "results.md").read_text()
    assert {file.name for file in pictures} == {
        "ruler.svg", "needles.svg", "recall.svg", "perplexity.svg", "steps.svg", "steps-tasks.svg"
    }  # fmt: skip
    for file in pictures:
        assert f"({file.name})" in named
        assert ElementTree.parse(file).getroot().tag.endswith("svg")


def test_the_same_records_give_the_same_bytes(run: RunDir, tmp_path: Path) -> None:
    first, second = (write_report(collect(run, EVERYTHING), tmp_path / name) for name in ("a", "b"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_results_are_read_back_from_their_file(run: RunDir, tmp_path: Path) -> None:
    results = collect(run, EVERYTHING)
    write_report(results, tmp_path)
    assert Results.model_validate_json((tmp_path / "results.json").read_bytes()) == results


def test_while_it_goes_on_it_says_how_many_samples_are_there(tmp_path: Path) -> None:
    some = answers("ruler", "vt", 1024, [1, 1, 0])
    run = make_evaluation(tmp_path, "eval-bbbbbb", EVERYTHING, {100: some}, done=False)
    said = " ".join(text_of(run, EVERYTHING))
    assert "Not complete: ruler 3 of 16, needles 0 of 4, recall 0 of 2, perplexity 0 of 2 samples." in said
    assert "mean of" not in said  # of two tasks one has no sample


def test_the_newest_complete_checkpoint_is_shown_before_a_newer_one(run: RunDir) -> None:
    folder = step_folder(run, 300)
    folder.mkdir()
    line = everything()[0].model_dump_json() + "\n"
    (folder / "0.jsonl").write_text(line + line[:40])  # and a line that was torn
    lines = text_of(run, EVERYTHING)
    assert lines[0] == "train-aaaaaa@200, evaluated by eval-aaaaaa"
    assert "Of step 300: ruler 1 of 16" in lines[1]
    assert text_of(run, EVERYTHING, 300)[0] == "train-aaaaaa@300, evaluated by eval-aaaaaa"


def test_a_checkpoint_that_is_gone_is_named_with_the_reason(run: RunDir) -> None:
    folder = step_folder(run, 50)
    folder.mkdir()
    (folder / "gone").write_text("train-aaaaaa had deleted it\n")
    assert "Step 50 was not scored: train-aaaaaa had deleted it" in text_of(run, EVERYTHING)
    with pytest.raises(Refused, match="step 50: train-aaaaaa had deleted it"):
        choose(collect(run, EVERYTHING), 50)


def test_a_summary_that_is_torn_is_made_of_the_records(run: RunDir) -> None:
    whole = collect(run, EVERYTHING)
    file = step_folder(run, 200) / "scores.json"
    file.write_text(file.read_text()[:100])
    torn = collect(run, EVERYTHING)
    assert not torn.checkpoints[1].complete
    scores = {score.key: score.mean for score in torn.checkpoints[1].summary.scores}
    assert scores == {score.key: score.mean for score in whole.checkpoints[1].summary.scores}


def test_nothing_scored_and_a_step_that_is_not_there_are_mistakes(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="step 7 has no scores in eval-aaaaaa; write one of 100, 200"):
        choose(collect(run, EVERYTHING), 7)
    empty = make_evaluation(tmp_path, "eval-cccccc", EVERYTHING, {})
    with pytest.raises(Refused, match="eval-cccccc has no scores: try again once a sample is done"):
        choose(collect(empty, EVERYTHING))


def test_published_rows_stand_beside_lengths_that_they_have(tmp_path: Path) -> None:
    job = evaluation(ruler={"tasks": ["vt"], "lengths": [4096], "samples": 4}, published=["Qwen3-4B"])
    run = make_evaluation(tmp_path, "eval-dddddd", job, {100: answers("ruler", "vt", 4096, [1, 1, 1, 0])})
    said = text_of(run, job)
    assert [line.split() for line in said if "Qwen3-4B" in line] == [["Qwen3-4B", "95.1", "P"]]
    assert any("scores on another text are not" in line for line in said)
    assert "Sources of the published scores" in said
