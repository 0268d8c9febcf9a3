from __future__ import annotations

import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.data.curate.made_report import EMPTY, full, step_of
from xgen.cli import data_report
from xgen.data.curate.report_html import render_report
from xgen.data.curate.report_model import (
    REPORT_FILE,
    Count,
    Domain,
    Flow,
    Histogram,
    Reason,
    Report,
)
from xgen.drawing.markup import VOID

# Numbers that only a curve shows, and those of a breakdown of which the page has the documents.
NOT_IN_WORDS = re.compile(
    r"(mixtures\.\d+\.lengths|domains\.\d+\.(lengths|quality|rejected)\.edges|steps\.\d+\.reasons\.\d+\.by_domain\..*\.bytes|version)"
)


class Page(HTMLParser):
    """Fails where elements are not closed in their order; collects text and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, said or "") for name, said in attrs]
        assert len({name for name, _ in attrs}) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.text.append(data)


def numbers(part: Any, path: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(part, dict):
        for key, value in part.items():
            yield from numbers(value, f"{path}.{key}".lstrip("."))
    elif isinstance(part, list | tuple):
        for place, value in enumerate(part):
            yield from numbers(value, f"{path}.{place}")
    elif isinstance(part, int):
        yield path, part


def test_every_count_of_the_report_is_in_words_or_pointed_at() -> None:
    report = full()
    page = render_report(report)
    counts = [(path, number) for path, number in numbers(report.model_dump()) if not NOT_IN_WORDS.match(path)]
    assert len(counts) > 100
    missing = [(path, number) for path, number in counts if f"{number:,}" not in page]
    assert not missing


def test_figures_thresholds_hashes_and_reasons_are_there() -> None:
    text = "".join(Page(render_report(full("why it is so"))).text)
    for said in (
        "≥ 50",
        "≤ 123,457",
        "0.9876",
        "0.0543",
        "0.0321",
        "0.9912",
        "9f8e7d6c",
        "abcd",
        "beef",
        "0.125",
        "1.25",
    ):
        assert said in text
    assert "20.00%" in text or "20.0%" in text  # of the confidence interval
    assert text.count("why it is so") == 27  # each excerpt, id, place, path, line, note and unmet wish


def test_rules_say_in_words_what_they_ask() -> None:
    text = "".join(Page(render_report(full())).text)
    assert "words that are more than symbols, at least" in text
    assert "Is this prose?" in text


def test_an_empty_report_says_that_nothing_was_there() -> None:
    text = "".join(Page(render_report(EMPTY)).text)
    for said in (
        "No document was read.",
        "There is no input.",
        "Every record could be read.",
        "No mixture was asked for.",
    ):
        assert said in text
    assert not re.search(r"\bnan\b|\bNone\b", text)


def test_a_corpus_of_which_nothing_is_left_is_drawn() -> None:
    three = Count(documents=3, bytes=9)
    read = step_of("read", {"web": Flow(taken=three, kept=three)})
    rule = Reason(
        name="c4.lorem_ipsum", bound=0.0, dropped=three, by_domain={"web": three}, samples=(),
    )  # fmt: skip
    gone = step_of("c4", {"web": Flow(taken=three, dropped=three)}, rule)
    text = "".join(Page(render_report(EMPTY.model_copy(update={"steps": (read, gone)}))).text)
    assert "-3 documents, 9 B" in text and "No document was kept." in text


def test_the_page_needs_nothing_else() -> None:
    page = Page(render_report(full("https://example.com/x.js <img src=https://example.com>")))
    assert not {"img", "link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    places = [said for _, name, said in page.attributes if name in ("src", "href", "xlink:href", "action")]
    assert places and all(place.startswith("#") for place in places)


def test_every_link_leads_somewhere_and_no_name_is_used_twice() -> None:
    page = Page(render_report(full()))
    names = [said for _, name, said in page.attributes if name == "id"]
    assert len(set(names)) == len(names)
    assert {said[1:] for _, name, said in page.attributes if name == "href"} <= set(names)


def test_coordinates_are_finite_and_widths_are_not_negative() -> None:
    plain = {"x", "y", "x1", "x2", "y1", "y2", "width", "height"}
    for report in (full(), EMPTY):
        for tag, name, said in Page(render_report(report)).attributes:
            if name in plain or (name in ("points", "d", "viewbox", "transform") and tag != "meta"):
                for number in re.findall(r"-?[\d.]+(?:e-?\d+)?|nan|inf", said):
                    assert math.isfinite(float(number)), (tag, name, said)
            if name in ("width", "height"):
                assert float(said) >= 0, (tag, said)
            if name == "style":
                assert not re.search(r"nan|inf|-\d", said)


def test_the_funnels_bars_are_in_proportion_to_what_is_kept() -> None:
    def counted(number: int) -> Count:
        return Count(documents=number, bytes=number)

    rule = Reason(
        name="c4.min_sentences", bound=5, dropped=counted(600), by_domain={"web": counted(600)}, samples=()
    )  # fmt: skip
    steps = (
        step_of("read", {name: Flow(taken=counted(n), kept=counted(n)) for name, n in (("web", 700), ("code", 300))}),
        step_of(
            "c4",
            {
                "web": Flow(taken=counted(700), kept=counted(100), dropped=counted(600)),
                "code": Flow(taken=counted(300), kept=counted(300)),
            },
            rule,
        ),
    )
    page = render_report(EMPTY.model_copy(update={"steps": steps}))
    funnel = page[
        page.index('class="by-bytes"') : page.index('class="row tokens') if 'class="row tokens' in page else None
    ]
    widths = {
        class_: float(width)
        for width, class_ in re.findall(r'width="([\d.]+)" height="20" class="(d0|d1|dropped)"', funnel)
    }
    assert widths["d1"] == pytest.approx(3 * widths["d0"], rel=0.01)
    assert widths["dropped"] == pytest.approx(2 * widths["d1"], rel=0.01)


HOSTILE = st.text(
    st.one_of(st.sampled_from("<>&\"'`=/\\\x00\x1b\u202e\ud800-!] \n"), st.characters()), min_size=1, max_size=40
) | st.sampled_from(
    [
        "</pre><script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "<!--",
        "]]>",
        "</style>",
        "&lt;b&gt;",
        "\x00",
    ]
)
PLAIN = Page(render_report(full()))


@settings(max_examples=60, deadline=None)
@given(HOSTILE, HOSTILE)
def test_text_of_documents_never_becomes_markup(text: str, name: str) -> None:
    """Whatever documents, sources, domains, sets and mixtures are called: the same elements, all closed."""
    found = Page(render_report(full(text, name)))
    assert sorted(found.tags) == sorted(PLAIN.tags)
    assert {name for _, name, _ in found.attributes} == {name for _, name, _ in PLAIN.attributes}
    render_report(full(text, name)).encode()  # lone surrogates are gone


def test_text_is_read_as_it_stands_and_unseen_signs_are_shown() -> None:
    text = "".join(Page(render_report(full("a <b> &amp; c\x1b[31m\u202egpj.exe"))).text)
    assert "a <b> &amp; c␛[31m�gpj.exe" in text


def test_the_same_report_gives_the_same_page() -> None:
    report = full()
    assert render_report(report) == render_report(Report.model_validate_json(report.model_dump_json()))


def test_many_domains_share_a_colour_and_are_all_named() -> None:
    names = [f"domain-{number}" for number in range(20)]
    counted = {name: Count(documents=1, bytes=100 - place) for place, name in enumerate(names)}
    read = step_of("read", {name: Flow(taken=one, kept=one) for name, one in counted.items()})
    domains = tuple(
        Domain(
            name=name, documents=1, bytes=1, tokens=1, sources={}, licences={}, languages={},
            lengths=Histogram(edges=(1.0, 2.0), counts=(1,)), quality=None, bands=(),
            rejected=Histogram(edges=(), counts=()),
        )
        for name in names
    )  # fmt: skip
    text = "".join(Page(render_report(EMPTY.model_copy(update={"steps": (read,), "domains": domains}))).text)
    assert "13 other domains" in text
    assert all(name in text for name in names)


def test_the_command_draws_the_page_where_it_is_missing(tmp_path: Path) -> None:
    report = full()
    (tmp_path / REPORT_FILE).write_text(report.model_dump_json())
    app = data_report.typer.Typer()
    app.command()(data_report.command)
    found = CliRunner().invoke(app, [str(tmp_path)])
    assert found.output.split() == [str(tmp_path / "report.html")]
    assert (tmp_path / "report.html").read_text() == render_report(report)
    elsewhere = tmp_path / "other.html"
    assert CliRunner().invoke(app, [str(tmp_path), "--html", str(elsewhere)]).exit_code == 0
    assert elsewhere.read_text() == render_report(report)


def test_the_command_says_what_is_no_curated_corpus(tmp_path: Path) -> None:
    app = data_report.typer.Typer()
    app.command()(data_report.command)
    found = CliRunner().invoke(app, [str(tmp_path)])
    assert found.exit_code == 2 and "has no report.json" in found.output
    (tmp_path / REPORT_FILE).write_text('{"version": 1}')
    found = CliRunner().invoke(app, [str(tmp_path)])
    assert found.exit_code == 2 and "no report of this version" in found.output
    assert not (tmp_path / "report.html").exists()
