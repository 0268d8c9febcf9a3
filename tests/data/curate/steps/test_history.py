"""What became of one document is told by its id or its number, from the work folder, at every stage of a curation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import xgen
from tests.data.curate.steps.conftest import run_all
from tests.data.curate.steps.planted import FOOTER, web, write_job
from xgen.data import StoreError, TokenStore
from xgen.data.curate.steps.history import History, history, open_work, with_id
from xgen.data.curate.steps.run import run_step
from xgen.spec import Curate


@pytest.fixture(scope="module")
def job(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Curate:
    job = write_job(tmp_path_factory.mktemp("history"), store.path / "tokenizer.json")
    run_all(job)
    return job


def of(job: Curate, name: str) -> list[History]:
    context = open_work(Path(job.work_folder))
    return [history(context, number) for number in with_id(context, name)]


def test_a_filter_is_told_with_what_it_measured_and_its_threshold(job: Curate) -> None:
    [one] = of(job, "brief")
    assert one.dropped and one.kept is None
    assert (one.dropped.rule, one.dropped.threshold) == ("gopher_quality.min_words", 25)
    assert one.dropped.value is not None and one.dropped.value < 25
    assert [check.rule for check in one.checks] == ["gopher_quality.min_words"]  # nothing looks at it any more
    assert (one.checks[0].value, one.checks[0].least, one.checks[0].dropped) == (one.dropped.value, 25, True)


def test_every_rule_that_a_document_passed_is_told(job: Curate) -> None:
    [one] = of(job, "good-3")
    filters = list(dict.fromkeys(check.rule.partition(".")[0] for check in one.checks))
    assert filters == ["url", "language", "lines", "gopher_repetition", "gopher_quality", "c4", "fineweb", "pii"]
    for check in one.checks:
        assert not check.dropped
        assert (check.least is None or check.value >= check.least) and (check.most is None or check.value <= check.most)
    assert {check.rule: check.least for check in one.checks}["gopher_quality.min_words"] == 40


def test_a_duplicate_names_the_document_that_stays(job: Curate) -> None:
    [one] = of(job, "near")
    assert one.dropped and (one.dropped.rule, one.dropped.other_id, one.cluster) == ("near.duplicate", "good-2", 2)
    assert one.dropped.other_place == f"{job.inputs[0].path}: line 3"


def test_each_record_with_one_id_is_told(job: Curate) -> None:
    first, second, third = of(job, "again")
    assert first.kept and second.dropped and third.dropped
    assert (second.dropped.rule, second.dropped.other) == ("ids.there_before", first.number)
    assert third.dropped.rule == "gopher_quality.min_words"


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("quality", "quality.min_probability"),
        ("ensemble", "ensemble.min_probability"),
        ("leaks", "leaks.ships"),
        ("nothing", "common_lines.nothing_left"),
        ("earlier", "earlier.duplicate"),
    ],
)
def test_steps_after_the_filters_are_told(job: Curate, name: str, rule: str) -> None:
    [one] = of(job, name)
    assert one.dropped and one.dropped.rule == rule and one.checks and one.excerpt


def test_a_document_that_stays_has_its_bytes_tokens_and_copies(job: Curate) -> None:
    [one] = of(job, "page-0")
    text = json.loads(Path(job.inputs[1].path).read_text().splitlines()[0])["text"]
    assert one.kept and one.kept.bytes == len(text) - len(FOOTER)
    assert set(one.kept.copies) == {"all"} and one.kept.tokens > 10
    context = open_work(Path(job.work_folder))
    kept = [found.kept for number in range(len(web())) if (found := history(context, number)).kept]
    assert any(one.copies["all"] > 0 for one in kept if one)


def test_what_later_steps_do_is_not_guessed(store: TokenStore, tmp_path: Path) -> None:
    job = write_job(tmp_path, store.path / "tokenizer.json")
    for step in ("prepare", "tag"):
        run_step(job, step)
    [one] = of(job, "near")
    assert one.dropped is None and one.kept is None and one.cluster is None and one.checks


def said(*arguments: str) -> tuple[int, str]:
    done = xgen("data", "trace", *arguments)
    return done.returncode, done.stdout or done.stderr


def test_the_command_tells_it_by_id_and_by_number(job: Curate) -> None:
    code, text = said(job.out, "exact")
    assert code == 0
    assert text.splitlines()[1].startswith("  dropped by exact.duplicate: document 1  good-1 (")
    [one] = of(job, "gopher_quality")
    code, text = said(job.out, f"{one.number}", "--number")
    lines = text.splitlines()
    assert lines[0].startswith(f"document {one.number}  gopher_quality  ({job.inputs[0].path}: line ")
    assert any(line.split() == ["gopher_quality.min_words", "37", ">=", "40", "dropped", "it"] for line in lines), text
    code, text = said(job.out, "good-1", "--json")
    found: list[dict[str, Any]] = json.loads(text)
    assert found[0]["kept"]["copies"].keys() == {"all"}


def test_mistakes_are_told_with_what_to_do(job: Curate, tmp_path: Path) -> None:
    work = job.work_folder
    assert said(job.out, "nope") == (2, f"{work}: no record has the id 'nope'\n")
    assert said(job.out, "57") == (2, f"{work}: no record has the id '57'; for document 57 write --number\n")
    code, text = said(job.out, "99999", "--number")
    assert code == 2 and "has no document 99,999; write a number from 0 to" in text
    assert said(job.out, "x1", "--number")[1].startswith("x1: is no number")
    gone = str(tmp_path / "corpus")
    code, text = said(gone, "exact")
    assert code == 2 and text.startswith(f"{gone}.work: is gone; single documents are known while")
    assert said(gone, "exact", "--work", work)[0] == 0
    with pytest.raises(StoreError, match=r"has no spec\.json"):
        open_work(tmp_path)
