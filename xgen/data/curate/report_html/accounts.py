"""The accounts: of every step what it took, kept, dropped and cut, by domain; the sums of what was read."""

from __future__ import annotations

from xgen.data.curate.report_html.tables import table
from xgen.data.curate.report_model import Count, Flow, Report, sum_of
from xgen.drawing.markup import Child, Html, el
from xgen.drawing.wording import count, exact_size, many

_HEADS = (
    "step", "domain|", "documents came", "dropped", "went on", "bytes came", "dropped", "cut out", "went on",
)  # fmt: skip


def accounts(report: Report) -> Html:
    steps = report.steps[1:]
    rows = [_row(step.name, "all", step) for step in steps]
    rows.append(_row("all steps", "all", _sum(report)))
    by_domain = [
        _row(step.name, domain, flow)
        for step in steps
        for domain, flow in step.by_domain.items()
        if flow.taken != flow.kept
    ]
    return el(
        "details",
        el("summary", "The accounts: every document and every byte"),
        el("p", "What came to a step is what went on, what it dropped, and what it cut out of documents that stay; "
           "below 0 are bytes that it put in, as placeholders.", class_="faint"),
        _wrong(report), table(_HEADS, rows, left=2),
        el("details", el("summary", "by domain, where something was dropped or cut"), table(_HEADS, by_domain, left=2)),
    )  # fmt: skip


def _row(step: str, domain: str, flow: Flow) -> list[Child]:
    return [
        step, domain, count(flow.taken.documents), count(flow.dropped.documents), count(flow.kept.documents),
        exact_size(flow.taken.bytes), exact_size(flow.dropped.bytes), exact_size(flow.cut), exact_size(flow.kept.bytes),
    ]  # fmt: skip


def _sum(report: Report) -> Flow:
    return Flow(
        taken=report.steps[0].kept,
        kept=report.steps[-1].kept,
        dropped=sum_of(step.dropped for step in report.steps),
        cut=sum(step.cut for step in report.steps),
    )


def _wrong(report: Report) -> list[Html]:
    """Steps whose numbers do not add up: there are none, unless a step counts wrongly."""
    return [
        el("p", f"{step.name}: {many(step.lost.documents, 'document')} and {step.lost.bytes:,} bytes that came are not "
           "accounted for: a defect of xgen.", class_="dropped-text")
        for step in report.steps[1:]
        if step.lost != Count()
    ]  # fmt: skip
