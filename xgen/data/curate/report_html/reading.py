"""What was read, and what could not be."""

from __future__ import annotations

from xgen.data.curate.report_html.tables import nothing, section, table
from xgen.data.curate.report_model import Quarantined, Report
from xgen.drawing.markup import Child, Html, el
from xgen.drawing.svg import meter
from xgen.drawing.wording import count, exact_size, many

_READ = "read, and dropped in the funnel: by ids, or by a filter before it"


def reading(report: Report) -> Html:
    lead = "Records that cannot be read are put aside with their place and the reason; nothing else stops for them."
    return section(
        "read", "What was read", lead, *_inputs(report), el("h3", "Quarantined records"), *_quarantine(report)
    )


def unreadable(report: Report) -> int:
    """Records that were put aside unread: the others are in the funnel."""
    return sum(row.records for row in report.quarantine if not row.read)


def _inputs(report: Report) -> list[Html]:
    if not report.inputs:
        return [nothing("There is no input.")]
    rows: list[list[Child]] = [
        [
            el("code", item.path),
            count(item.files),
            count(item.units),
            count(item.read.documents),
            exact_size(item.read.bytes),
            el("span", count(item.quarantined), class_="dropped-text" if item.quarantined else None),
            ", ".join(f"{number:,} {suffix or 'without a suffix'}" for suffix, number in item.ignored.items()) or "-",
        ]
        for item in report.inputs
    ]
    heads = ("input", "files", "units", "documents", "bytes", "quarantined", "files of other kinds, not read|")
    return [table(heads, rows)]


def _quarantine(report: Report) -> list[Html]:
    if not report.quarantine:
        return [nothing("Every record could be read.")]
    most = max(row.records for row in report.quarantine)
    return [
        el(
            "details",
            el(
                "summary",
                el("span", row.reason, el("small", _READ) if row.read else "", class_="reason"),
                el("span", many(row.records, "record"), class_="n"),
                meter(row.records, most, "dropped"),
                class_="quarantined",
            ),
            el("ul", [el("li", el("code", place)) for place in row.places]) if row.places else "",
            _more(row),
        )
        for row in report.quarantine
    ]


def _more(row: Quarantined) -> Child:
    if not row.places:
        return nothing("Their places were not kept.")
    rest = row.records - len(row.places)
    return el("p", f"and {rest:,} more", class_="faint") if rest > 0 else ""
