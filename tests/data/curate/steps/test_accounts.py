"""A corpus in which every filter and step drops or cuts something: nothing is lost on the way, and all is told."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.data.curate.steps.conftest import run_all, spec_of
from xgen.data import TokenStore
from xgen.data.curate.report_model import Count, Report, read_report, sum_of
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.fates import fates
from xgen.data.curate.steps.plan import read_plan
from xgen.spec import Curate

FILTERS = ("url", "language", "lines", "gopher_repetition", "gopher_quality", "c4", "fineweb", "pii")
STEPS = ("read", *FILTERS, "quality", "ids", "earlier", "exact", "near", "leaks", "common_lines", "ensemble")
NAV, FOOTER = "Home | News | About | Contact", "All rights are reserved by the owners of this place."
SUBJECTS = ("The old river", "A quiet winter", "The stone bridge", "Every traveller", "The garden", "My neighbour")
VERBS = ("had brought", "was carrying", "would remember", "could not find", "has always kept", "will return with")
OBJECTS = ("the light of the morning", "a letter to the city", "the best of the harvest", "some bread and water")
PLACES = ("behind the hills", "near the harbour", "in the market", "under the roof", "along the road", "by the gate")


def sentence(rng: random.Random) -> str:
    parts = (rng.choice(some) for some in (SUBJECTS, VERBS, OBJECTS, PLACES))
    return f"{' '.join(parts)}, and that is {rng.choice(('true', 'strange', 'good', 'new'))} number {rng.random():.6f}."


def prose(seed: object, lines: int = 12) -> list[str]:
    rng = random.Random(f"prose {seed}")
    return [sentence(rng) for _ in range(lines)]


def spam(seed: object) -> list[str]:
    rng = random.Random(f"spam {seed}")
    words = ("casino", "bonus", "cheap", "pills", "viagra", "winner", "jackpot", "loans", "click", "the", "to", "of")
    return [" ".join(rng.choices(words, k=14)).capitalize() + "." for _ in range(12)]


def web() -> list[dict[str, str]]:
    """Of the domain with all filters; ids say what should become of a record."""
    rows = {f"good-{number}": prose(number) for number in range(40)}
    rows |= {f"cut-{number}": [NAV, *prose(f"cut {number}"), "no full stop here"] for number in range(5)}
    rows["url"] = prose("url")
    rows["language"] = ["Der alte Fluss hatte im Winter das Licht des Morgens hinter die Hügel gebracht, sagte er."] * 9
    rows["lines"] = [*(f"AD: buy number {n}" for n in range(9)), *prose("ads", 4)]
    rows["gopher_repetition"] = [
        *prose("again", 2),
        *(["The same line of the same words is here again."] * 30),
    ]
    rows["gopher_quality"] = [NAV, *prose("short", 2)]
    rows["c4"] = [*prose("c4"), "A curly { bracket stands in this line of the text."]
    rows["fineweb"] = [*(f"{line}" for line in prose("list", 5)), *(f"The item {n} is new." for n in range(40))]
    rows["pii"] = [NAV, *prose("pii", 8), "Write to " + ", ".join(f"m{n}@example.com" for n in range(20)) + " soon."]
    rows["masked"] = [*prose("masked"), "Write to a.very.long.name@example.com or to b@c.de for all of the rest."]
    rows["quality"] = [NAV, *spam(1), "Write to a.very.long.name@example.com for more."]
    rows["again"] = prose("first with this id")
    rows["earlier"] = prose("earlier")
    rows["exact"] = rows["good-1"]
    rows["near"] = [*rows["good-2"][:-1], "This one line is not the same as that of the other one."]
    rows["leaks"] = [*prose("leak"), question(), *prose("leak 2", 3)]
    found = [row(name, lines) for name, lines in rows.items()]
    found[-4:-4] = [row("again", prose("second with this id")), row("again", prose("short", 2))]
    return found


def page() -> list[dict[str, str]]:
    """Of a domain with another threshold, and lines that they share."""
    rows = {f"page-{number}": [*prose(f"page {number}"), FOOTER] for number in range(8)}
    rows["nothing"] = [FOOTER] * 3
    rows["brief"] = prose("brief", 1)
    rows["ensemble"] = spam(2)
    return [row(name, lines) for name, lines in rows.items()]


def row(name: str, lines: list[str]) -> dict[str, str]:
    site = "ads.bad.example" if name == "url" else "good.example"
    return {"id": name, "url": f"https://{site}/{name}", "text": "\n".join(lines)}


def question() -> str:
    return "How many barrels did the captain of the northern ship sell to the merchants of the island that summer?"


def write(file: Path, rows: list[dict[str, Any]], *more: str) -> str:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(one) + "\n" for one in rows) + "".join(more))
    return str(file)


@pytest.fixture(scope="module")
def job(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Curate:
    folder = tmp_path_factory.mktemp("accounts")
    tokenizer = store.path / "tokenizer.json"
    keys = {"id": "id", "url": "url"}
    none: dict[str, Any] = {"filters": [], "domains": {}, "decontaminate": None, "mixtures": {"all": {"tokens": "1k"}}}
    known = [{"path": write(folder / "known.jsonl", [row("known", prose("earlier"))]), "domain": "web"}]
    earlier = spec_of(folder, tokenizer, folder / "earlier", inputs=known, dedup={"index": True}, **none)
    run_all(earlier)
    sites = folder / "sites.txt"
    sites.write_text("bad.example\n")
    labels = {
        "good": [write(folder / "good.jsonl", [row(str(n), prose(f"label {n}")) for n in range(80)])],
        "bad": [write(folder / "bad.jsonl", [row(str(n), spam(f"label {n}")) for n in range(80)])],
    }
    patterns = [
        {"name": "nav", "expression": r"^Home \|", "cut": True},
        {"name": "ads", "expression": "^AD:", "max_share": 0.5},
    ]
    # Sentences of few words have runs of words in common: only whole lines count.
    grams = [*(f"max_top_{n}_gram" for n in range(2, 5)), *(f"max_duplicate_{n}_grams" for n in range(5, 11))]
    repetition = dict.fromkeys(grams)
    sets = [{"name": "ships", "path": write(folder / "ships.jsonl", [{"q": question()}]), "keys": ["q"]}]
    broken = ('{"id": "x", "text": 7}\n', "{\n")
    job = spec_of(
        folder, tokenizer, folder / "out",
        inputs=[
            {"path": write(folder / "web.jsonl", web(), *broken), "domain": "web", "keys": keys},
            {"path": write(folder / "page.jsonl", page()), "domain": "page", "keys": keys},
        ],
        domains={},
        filters=[
            {
                "domains": ["web"], "url_lists": {"domains": [str(sites)]}, "language": {"languages": ["en"]},
                "lines": {"patterns": patterns}, "gopher_repetition": repetition,
                "gopher_quality": {"min_words": 40, "min_letter_words": 0.5},
                "c4": {}, "fineweb": {"max_duplicate_line_chars": None},
            },
            {
                "domains": ["page"], "gopher_quality": {"min_words": 25, "min_stop_words": 0},
                "lines": {"patterns": [{"name": "own", "expression": "^Own:", "cut": True}]},
            },
        ],
        pii={"max_per_kb": 10},
        quality={"labels": labels, "domains": ["web"]},
        ensemble={"labels": labels, "domains": ["page"]},
        decontaminate={"sets": sets},
        dedup={"lines": {"max_documents": 3, "except_domains": ["web"]}, "earlier": [f"{folder / 'earlier'}/index"]},
        mixtures={"all": {"tokens": "1k"}},
    )  # fmt: skip
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


def test_samples_say_where_they_were_read(job: Curate, report: Report) -> None:
    lines = {item.path: Path(item.path).read_text().splitlines() for item in job.inputs}
    for step in report.steps:
        for reason in step.reasons:
            for sample in reason.samples:
                file, _, line = sample.place.rpartition(": line ")
                assert json.loads(lines[file][int(line) - 1])["id"] == sample.id
