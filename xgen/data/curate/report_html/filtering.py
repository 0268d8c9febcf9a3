"""Every filter and its rules, and personal data that was masked."""

from __future__ import annotations

from xgen.data.curate.report_html.palette import Palette
from xgen.data.curate.report_html.rules import step_card
from xgen.data.curate.report_html.tables import nothing, section, table
from xgen.data.curate.report_model import Report
from xgen.drawing.markup import Html, el
from xgen.drawing.svg import meter
from xgen.drawing.wording import count

ELSEWHERE = ("earlier", "exact", "near", "common_lines", "leaks")  # steps that other sections show


def filtering(report: Report, palette: Palette) -> Html:
    lead = (
        "Of each document the first rule that it broke counts. A rule opens to some of the documents that it dropped; "
        "what became of any other one, xgen data trace OUT ID says."
    )
    cards = [
        step_card(number, step, palette)
        for number, step in enumerate(report.steps)
        if number and step.name not in ELSEWHERE
    ]
    shown = cards or [nothing("No filter was asked for.")]
    return section("filters", "Filters, rule by rule", lead, *shown, el("h3", "Personal data"), _pii(report))


def _pii(report: Report) -> Html:
    most = max(report.pii.values(), default=0)
    if not most:
        return nothing("None was masked." + (f" Looked for: {', '.join(report.pii)}." if report.pii else ""))
    rows = [[kind, count(number), meter(number, most, "cut")] for kind, number in report.pii.items()]
    return el("div", table(("kind", "places masked", "|"), rows), class_="narrow")
