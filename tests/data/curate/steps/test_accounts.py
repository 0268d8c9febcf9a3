"""Where every filter and step drops or cuts something, nothing is lost on the way, and all is told."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from tests.data.curate.steps.conftest import run_all
from tests.data.curate.steps.planted import FOOTER, page, prose, web, write_job
from xgen.data import TokenStore
from xgen.data.curate.report_model import Count, Report, read_report, sum_of
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.fates import fates
from xgen.data.curate.steps.plan import read_plan
from xgen.spec import Curate

FILTERS = ("url", "language", "lines", "gopher_repetition", "gopher_quality", "c4", "fineweb", "pii")
STEPS = ("read", *FILTERS, "quality", "ids", "earlier", "exact", "near", "leaks", "common_lines", "ensemble")


@pytest.fixture(scope="module")
def job(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Curate:
    job = write_job(tmp_path_factory.mktemp("accounts"), store.path / "tokenizer.json")
    run_all(job)
    return job


@pytest.fixture(scope="module")
def report(job: Curate) -> Report:
    return read_report(Path(job.out))


@pytest.fixture(scope="module")
def reasons(job: Curate) -> dict[str, str]:
    """By id; the last one of those that have it."""
    context = Context(job, Path(job.work_folder), read_plan(job))
    return {fate.id: fate.reason for fate in fates(context)}


def test_every_filter_and_step_drops_what_is_meant_for_it(report: Report, reasons: dict[str, str]) -> None:
    meant = {name: reasons[name].partition(".")[0] for name in (*FILTERS, *STEPS[9:]) if name in reasons}
    assert meant == {name: name for name in meant}
    assert reasons["nothing"] == "common_lines.nothing_left"
    assert {step.name for step in report.steps if not step.dropped.documents} == {"read"}
    assert {step.name for step in report.steps if step.cut} == {"lines", "c4", "pii", "common_lines"}


def test_steps_are_told_in_the_order_in_which_they_work(report: Report) -> None:
    assert tuple(step.name for step in report.steps) == STEPS


def test_what_a_step_takes_is_what_it_keeps_drops_and_cuts(report: Report) -> None:
    for step in report.steps:
        assert step.lost == Count(), step.name
        assert step.dropped == sum_of(reason.dropped for reason in step.reasons), step.name
        for domain, flow in step.by_domain.items():
            assert flow.lost == Count(), (step.name, domain)
            assert flow.dropped == sum_of(reason.by_domain.get(domain, Count()) for reason in step.reasons)
        for part in ("taken", "kept", "dropped"):
            assert getattr(step, part) == sum_of(getattr(flow, part) for flow in step.by_domain.values())
        assert step.cut == sum(flow.cut for flow in step.by_domain.values())
    for before, after in pairwise(report.steps):
        assert {name: flow.kept for name, flow in before.by_domain.items()} == {
            name: flow.taken for name, flow in after.by_domain.items()
        }


def test_the_ends_of_the_funnel_are_what_was_read_and_what_the_tables_hold(report: Report) -> None:
    first, last = report.steps[0], report.steps[-1]
    raw = [one["text"].encode() for one in (*web(), *page())]
    assert first.kept == Count(documents=len(raw), bytes=sum(map(len, raw)))
    assert first.kept == sum_of(one.read for one in report.inputs)
    for domain in report.domains:
        assert last.by_domain[domain.name].kept == Count(documents=domain.documents, bytes=domain.bytes)
    unread = [row for row in report.quarantine if not row.read]
    assert sum(row.records for row in unread) == sum(one.quarantined for one in report.inputs) == 2


def test_every_document_has_the_one_fate_that_the_report_counts(job: Curate, report: Report) -> None:
    context = Context(job, Path(job.work_folder), read_plan(job))
    found = Counter(fate.reason for fate in fates(context))
    counted = Counter[str]()
    for step in report.steps:
        for reason in step.reasons:
            counted[reason.name] += reason.dropped.documents
    assert found.pop("") == report.steps[-1].kept.documents
    assert found == counted


def test_a_rule_with_two_thresholds_is_told_by_each(report: Report) -> None:
    step = next(step for step in report.steps if step.name == "gopher_quality")
    found = {(one.name, one.bound): set(one.by_domain) for one in step.reasons}
    assert found["gopher_quality.min_words", 40.0] == {"web"}
    assert found["gopher_quality.min_words", 25.0] == {"page"}


def test_common_lines_are_told_with_the_documents_that_have_them(report: Report) -> None:
    assert report.lines and report.lines.frequent == 1
    assert [(line.text, line.documents) for line in report.lines.samples] == [(FOOTER, 9)]
    step = next(step for step in report.steps if step.name == "common_lines")
    assert report.lines.bytes == step.cut + step.dropped.bytes


def test_records_with_one_id_are_told_with_the_places_of_both(job: Curate, report: Report) -> None:
    file = job.inputs[0].path
    ids = [one["id"] for one in web()]
    first, second, third = (place + 1 for place, name in enumerate(ids) if name == "again")
    row = next(row for row in report.quarantine if row.read)
    assert row.records == 2  # of the third, a filter made an end before
    assert row.places == tuple(
        f"{file}: line {line}: has the id 'again' of {file}: line {first}" for line in (second, third)
    )
    step = next(step for step in report.steps if step.name == "ids")
    [sample] = step.reasons[0].samples
    assert (sample.place, sample.other) == (f"{file}: line {second}", first - 1)
    assert sample.text != sample.other_text and sample.other_text.startswith(prose("first with this id")[0])


def test_duplicates_are_told_in_the_order_of_reading(report: Report) -> None:
    slices, dropped = report.dedup.slices, {step.name: step.dropped.documents for step in report.steps}
    assert sum(one.read for one in slices) == report.steps[0].kept.documents
    for name in ("earlier", "exact", "near"):
        assert sum(getattr(one, name) for one in slices) == getattr(report.dedup, name) == dropped[name]
    near = next(step for step in report.steps if step.name == "near")
    assert sum(one.first for one in slices) == near.kept.documents


def test_scores_of_what_the_models_dropped_are_told_by_domain(report: Report) -> None:
    models = [step for step in report.steps if step.name in ("quality", "ensemble")]
    for domain in report.domains:
        dropped = sum(step.by_domain[domain.name].dropped.documents for step in models)
        assert sum(domain.rejected.counts) == dropped == 1
        middle = domain.rejected.edges.index(0.0)
        assert sum(domain.rejected.counts[:middle]) == dropped  # under the bound: log-odds of 0
        assert domain.quality and sum(domain.quality.counts[:middle]) == 0


def test_samples_show_no_personal_data_that_documents_lose(report: Report) -> None:
    [sample] = next(step for step in report.steps if step.name == "pii").reasons[0].samples
    assert "<email>" in sample.text
    assert "@example.com" not in report.model_dump_json()


def test_samples_say_where_they_were_read(job: Curate, report: Report) -> None:
    lines = {item.path: Path(item.path).read_text().splitlines() for item in job.inputs}
    for step in report.steps:
        for reason in step.reasons:
            for sample in reason.samples:
                file, _, line = sample.place.rpartition(": line ")
                assert json.loads(lines[file][int(line) - 1])["id"] == sample.id
