"""What `xgen status` says of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import xgen
from tests.evals.made import evaluation, make_run, record, training
from xgen.cli.scores import evaluation_facts, evaluation_lines, headline
from xgen.evals.records import RecordWriter, step_folder
from xgen.evals.summary import summarize
from xgen.runs import EventWriter, Ledger, RunDir, read_events, replay, write_atomic


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    checkpoints = {"run": "base-aaaaaa", "every": 10, "follow": True}
    recall = {"lengths": [64, 128], "samples": 3}
    return make_run(tmp_path / "runs", "scores-k3f9ab", evaluation(checkpoints=checkpoints, ruler=None, recall=recall))


def scored(run: RunDir, step: int) -> None:
    """Whole, and told of."""
    records = [record("recall", "json_kv", length, index, index / 2) for index in range(3) for length in (64, 128)]
    with RecordWriter(step_folder(run, step) / "0.jsonl") as file:
        for one in records:
            file.append(one)
    summary = summarize(records)
    write_atomic(step_folder(run, step) / "scores.json", summary.model_dump_json())
    scores = {one.key: one.mean for one in summary.scores}
    EventWriter(run, "evaluation", 1, "7").write("evaluated", step=step, checkpoint=f"base@{step}", scores=scores)


def lines(run: RunDir) -> list[str]:
    facts = evaluation_facts(run, replay(read_events(run)))
    assert facts
    return list(evaluation_lines(facts))


def test_it_says_what_is_done_how_far_the_rest_is_and_what_came_of_it(run: RunDir) -> None:
    assert lines(run) == ["scores base-aaaaaa, done: none yet"]
    scored(run, 10)
    scored(run, 20)
    for shard in range(2):
        with RecordWriter(step_folder(run, 30) / f"{shard}.jsonl") as writer:
            writer.append(record("recall", "json_kv", 64, shard, 1.0))
    with (step_folder(run, 30) / "1.jsonl").open("a") as file:
        file.write('{"suite": "rec')  # being written
    step_folder(run, 15).mkdir()
    (step_folder(run, 15) / "gone").write_text("it was deleted\n")
    assert lines(run) == [
        "scores base-aaaaaa, done: 10, 20",
        "step 30: 2 of 6 samples",
        "step 15 is not scored: it was deleted",
        "step 20: recall 50.0%",
    ]


def test_of_many_checkpoints_the_newest_are_named(run: RunDir) -> None:
    for step in range(10, 130, 10):
        step_folder(run, step).mkdir(parents=True)
        (step_folder(run, step) / "scores.json").touch()
    assert lines(run) == ["scores base-aaaaaa, done: 4 and 50, 60, 70, 80, 90, 100, 110, 120"]


def test_a_suite_is_one_number_in_its_unit() -> None:
    scores = {
        "ruler/vt/4096": 0.9, "ruler/average/4096": 0.8, "ruler/average/8192": 0.6, "ruler/average/0": 0.7,
        "ruler/wavg_inc/0": 0.1, "ruler/effective_length/0": 4096.0, "harness/arc_easy/0": 0.25,
        "harness/gsm8k/0": 0.75, "perplexity/books/65536": 2.0,
    }  # fmt: skip
    assert list(headline(scores)) == [
        "2.000 nats a token of books at 65536", "ruler 70.0%", "harness 50.0%", "effective length 4,096",
    ]  # fmt: skip


def test_another_kind_of_run_has_none(tmp_path: Path) -> None:
    assert evaluation_facts(make_run(tmp_path, "train-aaaaaa", training()), Ledger()) is None


def test_status_prints_them(run: RunDir) -> None:
    profile = run.path.parents[1] / "here.yaml"
    profile.write_text(f"scheduler: local\nrun_root: {run.path.parent}\npartitions: {{cpu: {{}}}}\n")
    run.profile_file.write_text(profile.read_text())
    scored(run, 10)
    done = xgen("status", run.name, "--cluster", str(profile), cwd=run.path.parents[1])
    assert "  scores base-aaaaaa, done: 10" in done.stdout.splitlines(), done.stderr
    assert "evaluated" in done.stdout
    told = json.loads(xgen("status", run.name, "--cluster", str(profile), "--json", cwd=run.path.parents[1]).stdout)
    assert told["evaluation"]["newest"] == {
        "step": 10, "scores": {"recall/json_kv/64": 0.5, "recall/json_kv/128": 0.5},
    }  # fmt: skip
