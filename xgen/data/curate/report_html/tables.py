"""Tables, and the boxes that sections are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xgen.data.curate.report_model import Count
from xgen.drawing.markup import Child, Html, el
from xgen.drawing.wording import exact_size, many


def table(heads: Sequence[str], rows: Iterable[Sequence[Child]], left: int = 1) -> Html:
    """The first `left` columns are words, the others numbers. A head that ends with | is of words again."""
    words = [number < left or head.endswith("|") for number, head in enumerate(heads)]
    head = el("tr", [el("th", name.rstrip("|"), class_=_side(word)) for name, word in zip(heads, words, strict=True)])
    body = [
        el("tr", [el("td", cell, class_=_side(word)) for cell, word in zip(row, words, strict=True)]) for row in rows
    ]
    return el("div", el("table", el("thead", head), el("tbody", body)), class_="scroll")


def section(anchor: str, title: str, lead: Child, *parts: Child) -> Html:
    """`lead` says in a sentence what is to be seen."""
    return el("section", el("h2", title), el("p", lead, class_="lead"), *parts, id=anchor)


def nothing(said: str) -> Html:
    """In the place of a part that has nothing in it."""
    return el("p", said, class_="nothing")


def tile(name: str, number: Child, *more: Child, class_: str = "") -> Html:
    said = [el("div", each, class_="more") for each in more]
    return el("div", el("div", name, class_="what"), el("div", number, class_="number"), said, class_=f"tile {class_}")


def excerpt(text: str) -> Html:
    """Text of a document: whatever is in it is shown and not obeyed."""
    return el("pre", text or "(empty)", dir="auto")


def documents(counted: Count) -> Html:
    """1,234 documents, 5.6 MB"""
    return el("span", many(counted.documents, "document"), ", ", exact_size(counted.bytes))


def _side(word: bool) -> str | None:
    return None if word else "n"
