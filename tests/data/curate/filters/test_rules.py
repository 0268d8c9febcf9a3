from pathlib import Path

import pytest

from xgen.data.curate.filters.rules import LineFilter, UrlFilter
from xgen.data.curate.filters.thresholds import Lines, Pattern, Urls
from xgen.data.curate.filters.trace import Batch
from xgen.data.curate.texts import Texts
from xgen.data.errors import StoreError


def listed(folder: Path, name: str, *entries: str) -> tuple[str, ...]:
    (folder / name).write_text("# a list\n\n" + "\n".join(entries))
    return (str(folder / name),)


def test_addresses_are_blocked_by_site_page_word_and_letters(tmp_path: Path) -> None:
    urls = UrlFilter.open(
        Urls(
            domains=listed(tmp_path, "domains", "Bad.example", "co.uk"),
            urls=listed(tmp_path, "urls", "https://good.example/page"),
            words=listed(tmp_path, "words", "casino"),
            soft_words=listed(tmp_path, "soft", "free", "win", "bonus"),
            parts=listed(tmp_path, "parts", "buy-now"),
        )
    )
    cases = {
        "https://bad.example/x": "url.domains: domain = 1 > 0",
        "http://www.a.bad.example": "url.domains: domain = 1 > 0",
        "bad.example:8080/x": "url.domains: domain = 1 > 0",
        "https://notbad.example/x": "",
        "https://good.example/page": "url.urls: url = 1 > 0",
        "https://good.example/page2": "",
        "https://good.example/Casino-royal": "url.words: words = 1 > 0",
        "https://good.example/casinos": "",
        "https://good.example/free": "",
        "https://good.example/free/win": "url.max_soft_words: soft_words = 2 > 1",
        "https://good.example/xx.buynow.html": "url.parts: parts = 1 > 0",
        "https://[bad": "",
        "": "",
    }
    trace = urls.check(Batch(Texts.of(["text"] * len(cases)), list(cases)))
    assert {url: trace.reason(number) for number, url in enumerate(cases)} == cases


def test_documents_without_addresses_pass() -> None:
    assert UrlFilter.open(Urls()).check(Batch(Texts.of(["a"]))).kept.all()
    assert UrlFilter.open(Urls()).check(Batch(Texts.of(["a"]), ["https://a.b"])).kept.all()


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="missing: cannot be read as a list"):
        UrlFilter.open(Urls(domains=(str(tmp_path / "missing"),)))


def test_patterns_cut_lines_and_drop_documents() -> None:
    lines = LineFilter.open(
        Lines(
            patterns=(
                Pattern(name="share", expression="^Share on", cut=True),
                Pattern(name="price", expression=r"\$[0-9]+$", max_share=0.5),
            )
        )
    )
    trace = lines.check(Batch(Texts.of(["A text.\nShare on X\nIt costs $5", "One $1\nTwo $2\nthree", "plain", ""])))
    assert trace.changed is not None
    assert trace.changed.texts.to_strings() == ["A text.\nIt costs $5", "One $1\nTwo $2\nthree", "plain", ""]
    assert trace.measures["share"].tolist() == [pytest.approx(1 / 3), 0, 0, 0]
    assert trace.kept.tolist() == [True, False, True, True]  # half of the lines is on the bound
    assert trace.reason(1) == "lines.price: price = 0.666667 > 0.5"


@pytest.mark.parametrize(
    ("patterns", "says"),
    [
        ([Pattern(name="a", expression="(", cut=True)], "is no regular expression"),
        ([Pattern(name="a", expression="x")], "does nothing"),
        ([Pattern(name="a", expression="x", cut=True)] * 2, "is there twice"),
    ],
)
def test_patterns_that_cannot_be_are_named(patterns: list[Pattern], says: str) -> None:
    with pytest.raises(StoreError, match=says):
        LineFilter.open(Lines(patterns=tuple(patterns)))
