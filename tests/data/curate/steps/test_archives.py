"""A curation of archives of the web: pages are documents, and all else that was answered is counted by its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.archives import MODULES, page, pages, record, response, write
from tests.data.curate.steps.conftest import run_all, spec_of
from xgen.data import TokenStore
from xgen.data.curate.report_model import read_report
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.fates import fates
from xgen.data.curate.steps.history import history, with_id
from xgen.data.curate.steps.plan import read_plan


@pytest.mark.parametrize("by_id", [False, True])
def test_pages_are_curated_and_what_is_none_is_counted(
    raw: Path, store: TokenStore, tmp_path: Path, by_id: bool
) -> None:
    (tmp_path / "crawl").mkdir()
    (tmp_path / "adult.txt").write_text("adult.example\n")
    adult = record("adult", response(page("json"))).replace(b"//docs.example", b"//www.adult.example", 1)
    write(tmp_path / "crawl" / "0.warc.gz", [*pages(), record("png", response(b"\x89PNG", "image/png")), adult])
    gone = [record(f"gone-{n}", response(b"<p>Not here.</p>", status="404 Not Found")) for n in range(3)]
    twice = pages()[1].replace(b"urn:uuid:textwrap", b"urn:uuid:again")
    other = record("string", response(b"<p>A page of another text, whose record has the id of one before it.</p>"))
    write(tmp_path / "crawl" / "1.warc.zst", [*gone, twice, other, record("empty", response(b"<html></html>"))])
    hurt = bytearray(write(tmp_path / "crawl" / "2.warc.gz", [pages()[0]]).read_bytes())
    (tmp_path / "crawl" / "2.warc.gz").write_bytes(hurt[:-100])
    html = tmp_path / "crawl" / "3.html"
    html.write_bytes(page("textwrap"))
    job = spec_of(
        raw, store.path / "tokenizer.json", tmp_path / "out", decontaminate=None, dedup={}, domains={"other": "web"},
        inputs=[{"path": str(tmp_path / "crawl"), "source": "crawl", "keys": {"id": "id"} if by_id else {}}],
        filters=[{"url_lists": {"domains": [str(tmp_path / "adult.txt")]}}],
        mixtures={"once": {"tokens": "1B", "max_epochs": 1}}, frequency="none",
    )  # fmt: skip
    run_all(job)
    report = read_report(Path(job.out))
    assert {row.reason: row.records for row in report.quarantine} == {
        **({"has the id of a record before it": 1} if by_id else {}),
        "is not an HTTP response of success": 3,
        "is not HTML": 1,
        "has no text": 1,
        "is damaged": 1,
    }
    work = Path(job.work_folder)
    context = Context(job, work, read_plan(job))
    found = {fate.id.removeprefix("urn:uuid:"): fate.reason for fate in fates(context)}
    assert set(found) == {*MODULES, "again", "adult", str(html)}
    assert (found["adult"], found["again"], found[str(html)]) == ("url.domains", *["exact.duplicate"] * 2)
    assert history(context, with_id(context, str(html))[0]).place == str(html)  # it is no line of a file
    steps = {step.name: step for step in report.steps}
    assert str(html) in {sample.place for reason in steps["exact"].reasons for sample in reason.samples}
    assert (steps["ids"].dropped.documents == 1) if by_id else ("ids" not in steps)
    left = len(MODULES) + (not by_id)
    assert report.steps[0].taken.documents == left + sum(step.dropped.documents for step in report.steps)
    assert TokenStore.open(Path(job.out) / "once").meta.num_documents == left
