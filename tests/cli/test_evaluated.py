"""The checkpoints that an evaluation scores are looked for before anything is submitted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import TRAIN
from tests.conftest import ROOT
from xgen.cli.evaluated import check_evaluated
from xgen.runs import RunDir
from xgen.spec import SpecError, dump, load_job, load_profile

STORE = ROOT / ".cache/tiny-store"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A training that goes on, and has none yet."""
    made = RunDir(tmp_path / "runs/base-aaaaaa")
    made.create()
    spec = tmp_path / "train.yaml"
    spec.write_text(TRAIN.replace("store: store", f"store: {STORE}"))
    made.spec_file.write_text(dump(load_job(spec).job))
    return made


def saved(run: RunDir, *steps: int) -> None:
    for step in steps:
        (run.checkpoints_dir / f"step-{step}").mkdir()
        (run.checkpoints_dir / f"step-{step}/manifest.json").touch()


def said(run: RunDir, checkpoints: object, **keys: object) -> str:
    """Of a spec that asks for these; '' for one that may be submitted."""
    spec = {"kind": "evaluate", "name": "scores", "checkpoints": checkpoints, "resources": {"time": "1h"},
            "recall": {"lengths": [64], "samples": 1}, **keys}  # fmt: skip
    file = run.path.parents[1] / "evaluate.yaml"
    file.write_text(yaml.safe_dump(spec))
    profile = load_profile(ROOT / "slurm/clusters/local.yaml").model_copy(update={"run_root": str(run.path.parent)})
    try:
        check_evaluated(load_job(file), profile)
    except SpecError as error:
        return str(error).removeprefix(f"{file}: ")
    return ""


def test_a_run_without_checkpoints_is_refused_unless_it_is_followed(run: RunDir) -> None:
    assert said(run, "base-aaaaaa") == (
        "checkpoints.run: base-aaaaaa has no complete checkpoint; wait, or write {every: 1, follow: true} beside it"
    )
    assert said(run, {"run": "base-aaaaaa", "every": 1, "follow": True}) == ""
    saved(run, 20)
    assert said(run, "base-aaaaaa") == said(run, str(run.path)) == ""


def test_a_step_that_may_yet_come_is_waited_for_and_one_that_is_gone_is_refused(run: RunDir) -> None:
    saved(run, 40, 60)
    assert said(run, {"run": "base-aaaaaa", "steps": [40, 60]}) == ""
    assert said(run, {"run": "base-aaaaaa", "steps": [60, 80], "follow": True}) == ""
    assert said(run, {"run": "base-aaaaaa", "steps": [60, 80]}) == (
        "checkpoints.steps: base-aaaaaa has not come to step 80; wait for it, or write follow: true"
    )
    gone = "checkpoints.steps: base-aaaaaa has no complete checkpoint of step {}; write one of 40, 60"
    for follow in (True, False):
        assert said(run, {"run": "base-aaaaaa", "steps": 20, "follow": follow}) == gone.format(20)
    run.ended_file.touch()
    assert said(run, {"run": "base-aaaaaa", "steps": 80}) == gone.format(80)


def test_a_choice_that_takes_none_is_refused_with_those_that_are_there(run: RunDir) -> None:
    saved(run, 40, 60)
    assert said(run, {"run": "base-aaaaaa", "every": 40}) == ""
    assert said(run, {"run": "base-aaaaaa", "every": 50}) == (
        "checkpoints.every: base-aaaaaa has no complete checkpoint of these; it has 40, 60"
    )


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(run: RunDir) -> None:
    saved(run, 40)
    other = run.path.parents[1] / "tokenizer.json"
    words = json.loads((STORE / "tokenizer.json").read_text())
    words["added_tokens"] += [
        {"id": 4096 + number, "content": f"<more{number}>", "special": True, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False}
        for number in range(8)
    ]  # fmt: skip
    other.write_text(json.dumps(words))
    assert "has 4104 tokens, and the model 4096" in said(run, "base-aaaaaa", tokenizer=str(other))
    assert said(run, "base-aaaaaa", tokenizer=str(STORE)) == ""


def test_what_the_report_or_the_harness_would_refuse_in_the_end_is_refused_before(run: RunDir) -> None:
    saved(run, 40)
    for checkpoints in ("base-aaaaaa", {"hf": "folder"}):
        assert said(run, checkpoints, published=["Qwen3-4"]).startswith(
            "published: 'Qwen3-4' is not known; write of xGen-small-4B, "
        )
    harness = {"suite": "report", "tasks": {"gsm8k": 5}}
    assert said(run, "base-aaaaaa", harness=harness).startswith("harness.tasks: gsm8k is in suite: report, as GSM8K")
    harness = {"suite": "report", "arguments": {"dtype": "float16"}}
    assert said(run, "base-aaaaaa", harness=harness).startswith("harness.arguments: dtype is not for the model's")
    assert said(run, "base-aaaaaa", harness={"suite": "report"}, published=["Qwen3-4B"]) == ""


def test_texts_of_no_kind_that_is_read_are_named(run: RunDir, tmp_path: Path) -> None:
    saved(run, 40)
    (tmp_path / "books").mkdir()
    (tmp_path / "books/one.txt").write_text("One.")
    (tmp_path / "empty").mkdir()
    books = {"perplexity": {"books": {"path": str(tmp_path / "books"), "length": "4k"}}}
    assert said(run, "base-aaaaaa", needles={"lengths": ["4k"], "haystack": str(tmp_path / "empty")}) == (
        f"needles.haystack: {tmp_path}/empty is no text; name a text file, or a folder of .txt or .md files"
    )
    assert said(run, "base-aaaaaa", **books) == (
        f"perplexity.books.path: {tmp_path}/books holds nothing to read, but 1 .txt; it takes .jsonl, .warc and .html, "
        "also as .zst or .gz, .parquet and .arrow"
    )
    (tmp_path / "books/one.jsonl").write_text('{"text": "One."}')
    assert said(run, "base-aaaaaa", **books) == ""
