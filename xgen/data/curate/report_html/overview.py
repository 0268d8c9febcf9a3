"""The first screen: figures, and the funnel."""

from __future__ import annotations

from xgen.data.curate.report_html.accounts import accounts
from xgen.data.curate.report_html.funnel import funnel
from xgen.data.curate.report_html.palette import Palette
from xgen.data.curate.report_html.reading import unreadable
from xgen.data.curate.report_html.tables import nothing, section, tile
from xgen.data.curate.report_model import Count, Report
from xgen.drawing.markup import Html, el
from xgen.drawing.wording import count, many, share, size, tokens


def overview(report: Report, palette: Palette) -> Html:
    if not report.steps or not report.steps[0].kept.documents:
        return section("overview", "What was thrown away, and why", "", nothing("No document was read."))
    lead = (
        "Each bar is what a step got: in the colours of the domains what went on, red what it dropped, orange what it "
        "cut out of documents that stayed. A step's name leads to its rules, with documents to read."
    )
    tiles = el("div", _tiles(report), class_="tiles")
    return section("overview", "What was thrown away, and why", lead, tiles, funnel(report, palette), accounts(report))


def _tiles(report: Report) -> list[Html]:
    read, kept = report.steps[0].kept, report.steps[-1].kept
    dedup = report.dedup
    alike = dedup.exact + dedup.near + dedup.earlier
    tiles = [
        tile("read", size(read.bytes), many(read.documents, "document")),
        tile("kept", share(kept.bytes, read.bytes), f"of the bytes: {_what(kept)}", class_="good"),
        tile("duplicates", share(alike, read.documents), f"of the documents: {alike:,} dropped", class_="bad"),
    ]
    rules = [(reason, step) for step in report.steps for reason in step.reasons]
    if rules:
        reason, step = max(rules, key=lambda pair: pair[0].dropped.documents)
        of = f"{share(reason.dropped.documents, step.taken.documents)} of what came to it"
        tiles.append(tile(f"most by {reason.name}", f"-{count(reason.dropped.documents)}", of, class_="bad"))
    leaked = sum(step.dropped.documents for step in report.steps if step.name == "leaks")
    if report.leaks:
        tiles.append(tile("evaluation leaks", count(leaked), "documents dropped", class_="bad" if leaked else ""))
    quarantined = unreadable(report)
    tiles.append(tile("not readable", count(quarantined), "records", class_="bad" if quarantined else ""))
    written = sum(mixture.written for mixture in report.mixtures)
    names = ", ".join(mixture.name for mixture in report.mixtures[:4])
    tiles.append(tile("tokens out", tokens(written), f"in {many(len(report.mixtures), 'mixture')}: {names}"))
    return tiles


def _what(kept: Count) -> str:
    return f"{size(kept.bytes)} in {many(kept.documents, 'document')}"
