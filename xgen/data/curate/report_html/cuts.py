"""Lines that many documents share, and evaluation leaks."""

from __future__ import annotations

from xgen.data.curate.report_html.palette import Palette
from xgen.data.curate.report_html.rules import step_cards
from xgen.data.curate.report_html.tables import nothing, section, table, tile
from xgen.data.curate.report_model import Lines, Report
from xgen.drawing.markup import Child, Html, el
from xgen.drawing.svg import meter
from xgen.drawing.wording import count, exact_size, many, share


def leaks(report: Report, palette: Palette) -> Html:
    lead = (
        "A document that holds an item of an evaluation set goes, whole. One with items of several sets is in the "
        "row of each set, and among the rules of the step once."
    )
    if not report.leaks:
        return section(
            "leaks", "Evaluation leaks", lead, nothing("No evaluation set was named: nothing was looked for.")
        )
    rows: list[list[Child]] = [
        [
            one.name,
            count(one.items),
            count(one.short),
            count(one.leaked),
            share(one.leaked, one.items),
            meter(one.leaked, one.items, "dropped"),
            count(one.documents),
        ]
        for one in report.leaks
    ]
    heads = (
        "evaluation set",
        "items",
        "too short to be sought",
        "found in the text",
        "of all",
        "|",
        "documents with some",
    )
    return section(
        "leaks", "Evaluation leaks", lead, table(heads, rows), *step_cards(report, palette, ("leaks",))
    )  # fmt: skip


def shared_lines(report: Report, palette: Palette) -> Html:
    lead = "Menus, notices, licences: what too many documents share says nothing of any of them."
    cards = step_cards(report, palette, ("common_lines",))
    shown = _lines(report.lines) if report.lines else [nothing("Lines that documents share were not looked for.")]
    return section("lines", "Lines cut", lead, *shown, *cards)


def _lines(lines: Lines) -> list[Html]:
    tiles = [
        tile(f"{lines.unit}s cut", count(lines.cut), exact_size(lines.bytes), class_="warn" if lines.cut else ""),
        tile(
            f"different {lines.unit}s", count(lines.frequent), f"in more than {many(lines.max_documents, 'document')}"
        ),
        tile("documents that lost some", count(lines.documents)),
    ]
    parts = [el("div", tiles, class_="tiles")]
    if lines.samples:
        rows: list[list[Child]] = [
            [el("code", line.text), count(line.documents), meter(line.documents, lines.samples[0].documents, "cut")]
            for line in lines.samples
        ]
        parts.append(table((f"{lines.unit}s that most documents have", "documents", "|"), rows))
    return parts
