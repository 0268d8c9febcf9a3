"""Duplicates: how they were found, how often documents occur, and how many copies follow from that."""

from __future__ import annotations

from itertools import pairwise

from xgen.data.curate.report_html.palette import Palette
from xgen.data.curate.report_html.rules import step_cards
from xgen.data.curate.report_html.tables import nothing, section, table, tile
from xgen.data.curate.report_model import Dedup, Frequency, Report
from xgen.drawing.markup import Child, Html, el
from xgen.drawing.svg import Axis, Frame, legend
from xgen.drawing.wording import count, many, share, value


def duplicates(report: Report, palette: Palette) -> Html:
    dedup = report.dedup
    lead = (
        f"Of documents with the same words, or words alike to at least {value(dedup.threshold)} (Jaccard, runs of "
        f"{dedup.ngram}), the first one stays. How many there were is its frequency, of which its copies follow."
    )
    charts = el("div", _sizes(dedup), _slices(report), _curve(dedup), class_="charts")
    return section(
        "duplicates", "Duplicates and frequency", lead, el("div", _tiles(dedup), class_="tiles"), charts,
        _size_table(dedup), *step_cards(report, palette, ("earlier", "exact", "near")),
        el("h3", "From frequency to copies"), *_frequency(report.frequency),
    )  # fmt: skip


def _tiles(dedup: Dedup) -> list[Html]:
    tiles = [
        tile("the same words", count(dedup.exact), "as a document before", class_="bad" if dedup.exact else ""),
        tile("nearly the same", count(dedup.near), "as a document before", class_="bad" if dedup.near else ""),
        tile("curated earlier", count(dedup.earlier), "in another corpus", class_="bad" if dedup.earlier else ""),
        tile("clusters", count(dedup.clusters), f"the largest has {many(dedup.largest, 'document')}"),
    ]
    if dedup.unplaced:
        said = "of keys that over a thousand documents share: compared with some of them only"
        tiles.append(tile("keys too common", count(dedup.unplaced), said, class_="warn"))
    return tiles


def _sizes(dedup: Dedup) -> Html:
    title = "How often a document occurs"
    bins = [one for one in dedup.sizes if one.clusters]
    if not bins:
        return el("figure", el("figcaption", title), nothing("There are no documents."))
    edges = _edges(dedup)
    most = max(one.documents for one in bins)
    frame = Frame(
        title,
        Axis("documents in a cluster", 1, max(edges[-1], 10), log=True),
        Axis("clusters, and documents in them", 0.7, most * 1.3, log=True),
    )
    shown = list(zip(dedup.sizes, pairwise(edges), strict=True))
    bars = [
        frame.bar(low, high, one.clusters, "kept", many(one.clusters, "cluster"))
        for one, (low, high) in shown
        if one.clusters
    ]
    tops = [
        frame.line(((low, one.documents), (high, one.documents)), "documents")
        for one, (low, high) in shown
        if one.clusters
    ]
    said = legend(("kept", "clusters: one document of each stays"), ("documents", "documents in them"))
    return frame.draw(bars, tops, legend=said)


def _edges(dedup: Dedup) -> list[float]:
    """Where the bins of sizes begin, and where the last one ends."""
    starts = [float(one.size) for one in dedup.sizes]
    shown = max((place for place, one in enumerate(dedup.sizes) if one.clusters), default=-1)
    if shown == len(starts) - 1:
        return [*starts, max(float(dedup.largest), starts[-1]) * 1.3]
    return (
        [*starts, starts[-1] * 3]
        if not shown
        else [*starts[: shown + 2], *([starts[shown + 1]] * (len(starts) - shown - 1))]
    )


def _size_table(dedup: Dedup) -> Html:
    rows: list[list[Child]] = []
    for place, one in enumerate(dedup.sizes):
        if one.clusters:
            after = dedup.sizes[place + 1].size - 1 if place + 1 < len(dedup.sizes) else None
            rows.append(
                [
                    _range(one.size, after),
                    count(one.clusters),
                    count(one.documents),
                    count(one.documents - one.clusters),
                ]
            )
    if not rows:
        return nothing("There are no clusters.")
    heads = ("documents in a cluster", "clusters", "documents", "beside the first")
    said = "Of all that was read, without repeated ids: what a filter dropped counts in the frequency of those like it."
    return el("div", table(heads, rows), el("p", said, class_="faint"), class_="narrow")


def _range(first: int, last: int | None) -> str:
    if last is None:
        return f"{first:,} and more"
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def _slices(report: Report) -> Html:
    """What an input adds to those before it."""
    title = "Duplicates in the order of reading"
    slices = report.dedup.slices
    read = sum(one.read for one in slices)
    if not read:
        return el("figure", el("figcaption", title), nothing("There are no documents."))
    frame = Frame(
        title,
        Axis("documents read, in the order of the inputs", 0, read),
        Axis("dropped as duplicates (%)", 0, 100, label="{:g}".format),
    )
    marks, begin = [], 0
    for one in slices:
        again = one.exact + one.near + one.earlier
        came = one.first + again
        if came:
            kinds = f"{one.exact:,} exact, {one.near:,} near, {one.earlier:,} earlier"
            said = f"{again:,} of {many(came, 'document')} ({kinds}); {one.first:,} stay of {one.read:,} read"
            marks.append(frame.bar(begin, begin + one.read, 100 * again / came, "dropped", said))
        begin += one.read
    at = 0
    for item in report.inputs:
        marks.append(frame.upright(at, "mark", item.path))
        at += item.read.documents
    return frame.draw(marks, legend=legend(("dropped", "of what came to this step"), ("mark", "an input begins")))


def _curve(dedup: Dedup) -> Html:
    title = f"Who is compared: {dedup.bands} bands of {dedup.rows} hashes"
    frame = Frame(
        title,
        Axis("similarity of two documents (Jaccard)", 0, 1, label="{:.1f}".format),
        Axis("probability that they are compared", 0, 1, label="{:.1f}".format),
    )
    said = f"duplicates from {value(dedup.threshold)} on"
    marks = [frame.upright(dedup.threshold, "mark", said)]
    if dedup.curve:
        marks.append(frame.line(dedup.curve, "blue"))
    return frame.draw(marks, legend=legend(("blue", "compared"), ("mark", said)))


def _frequency(frequency: Frequency) -> list[Html]:
    rule = {
        "none": "Every document has one copy, however often it occurred.",
        "fineweb2": "The table of FineWeb2.",
        "table": "The table of the spec.",
        "rehydrate": "Estimated from what the filters removed of each size: what is often removed is repeated less.",
    }.get(frequency.rule, frequency.rule)
    kept = sum(frequency.documents)
    starts = list(frequency.table)
    rows: list[list[Child]] = [
        [
            _range(start, starts[place + 1] - 1 if place + 1 < len(starts) else None),
            count(frequency.table[start]),
            count(number),
            share(number, kept),
        ]
        for place, (start, number) in enumerate(zip(starts, frequency.documents, strict=False))
    ]
    heads = ("documents in a cluster", "copies in one pass", "documents kept", "of all")
    parts = [el("p", rule, f" {frequency.note}" if frequency.note else "")]
    parts.append(el("div", table(heads, rows), class_="narrow") if rows else nothing("There is no table."))
    return [*parts, *_rates(frequency)]


def _rates(frequency: Frequency) -> list[Html]:
    bins = frequency.bins
    if not bins:
        return []
    last = bins[-1].size
    axis = Axis("documents in a cluster", 1, max(10.0, last * 2.0), log=True)
    most = max(*(one.high for one in bins), frequency.rate or 0.0, 0.01)
    frame = Frame(
        "How much of each frequency the filters removed",
        axis,
        Axis("share removed", 0, min(1.0, most * 1.1), label=_percent),
    )
    ends = [*(float(one.size) for one in bins[1:]), last * 2.0]
    marks: list[Html] = []
    for one, end in zip(bins, ends, strict=True):
        middle = (max(1.0, one.size) * end) ** 0.5
        said = f"{share(one.removed, one.documents)} of {many(one.documents, 'document')}"
        marks.append(frame.bar(max(1.0, one.size), end, one.rate, "dropped", said))
        marks.append(frame.line(((middle, one.low), (middle, one.high)), "interval"))
    shown = [("dropped", "removed"), ("interval", "its confidence interval")]
    if frequency.rate is not None:
        marks.append(frame.line(((axis.low, frequency.rate), (axis.high, frequency.rate)), "mark"))
        shown.append(("mark", f"of all documents, {share(frequency.rate, 1)}"))
    rows = [
        [
            f"from {one.size:,}", count(one.documents), count(one.removed), share(one.rate, 1),
            f"{share(one.low, 1)} to {share(one.high, 1)}", count(one.copies),
        ]
        for one in bins
    ]  # fmt: skip
    heads = ("documents in a cluster", "documents", "removed", "rate", "confidence interval", "copies")
    return [el("div", frame.draw(marks, legend=legend(*shown)), table(heads, rows), class_="charts")]


def _percent(number: float) -> str:
    return f"{100 * number:.3g}%"
