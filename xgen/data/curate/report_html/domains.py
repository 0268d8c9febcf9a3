"""The corpus by domain: before and after, languages, lengths, quality."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from xgen.data.curate.report_html.palette import Palette
from xgen.data.curate.report_html.tables import nothing, section, table
from xgen.data.curate.report_model import Count, Domain, Histogram, Mixture, Report
from xgen.drawing.markup import Child, Html, el
from xgen.drawing.svg import Axis, Frame, legend, meter
from xgen.drawing.wording import count, exact_size, many, share, value


def domains(report: Report, palette: Palette) -> Html:
    lead = "How the shares of the domains move from what was read to what a training sees, and what documents are like."
    if not report.domains:
        return section("domains", "Domains", lead, nothing("No document was kept."), *_classifiers(report))
    by_name = {domain.name: domain for domain in report.domains}
    ordered = [by_name[name] for name in palette.order(by_name)]
    lengths = [_lengths(domain, report.mixtures, palette) for domain in ordered]
    return section(
        "domains", "Domains, lengths, quality, languages", lead, palette.legend(), _shares(report, palette),
        _table(report, palette), _origins(report, palette),
        el("h3", "Length of documents"), el("div", lengths, class_="charts"), el("h3", "Quality"),
        *_qualities(ordered, palette),
        el("h3", "Languages"), _languages(report), el("h3", "Classifiers"), *_classifiers(report),
    )  # fmt: skip


def _shares(report: Report, palette: Palette) -> Html:
    rows: list[tuple[str, dict[str, int]]] = []
    if report.steps:
        rows.append(("read, bytes", {name: one.kept.bytes for name, one in report.steps[0].by_domain.items()}))
        rows.append(("kept, bytes", {name: one.kept.bytes for name, one in report.steps[-1].by_domain.items()}))
    rows.append(("kept, tokens", {one.name: one.tokens for one in report.domains}))
    for mixture in report.mixtures:
        sums: dict[str, int] = defaultdict(int)
        for quota in mixture.quotas:
            sums[quota.domain] += quota.tokens
        rows.append((f"{mixture.name}, tokens", dict(sums)))
    drawn = [
        el("div", el("div", name, class_="name"), _share_bar(name, palette.stacked(amounts), palette), class_="share")
        for name, amounts in rows
    ]
    return el("figure", el("figcaption", "Shares of the domains (%)"), drawn, class_="wide")


def _share_bar(name: str, amounts: Mapping[str, int], palette: Palette) -> Html:
    whole = sum(amounts.values())
    if not whole:
        return nothing("nothing")
    parts = []
    for class_, amount in amounts.items():
        part = share(amount, whole)
        said = f"{palette.name_of(class_)}: {part}, {amount:,}"
        wide = 100 * amount / whole
        label = f"{wide:.0f}%" if wide >= 4 else ""
        parts.append(el("div", label, class_=class_, style=f"width:{wide:.3f}%", title=said))
    return el("div", parts, class_="stack", role="img", aria_label=name)


def _table(report: Report, palette: Palette) -> Html:
    first = report.steps[0].by_domain if report.steps else {}
    by_name = {one.name: one for one in report.domains}
    rows: list[list[Child]] = []
    for name in palette.order({*first, *by_name}):
        read = first[name].kept if name in first else Count()
        own = by_name.get(name)
        kept = (own.documents, own.bytes, own.tokens) if own else (0, 0, 0)
        rows.append([
            palette.label(name), count(read.documents), exact_size(read.bytes), count(kept[0]), exact_size(kept[1]),
            share(kept[1], read.bytes), meter(kept[1], read.bytes, "kept"), count(kept[2]),
            f"{kept[1] / kept[2]:.2f}" if kept[2] else "-",
        ])  # fmt: skip
    heads = (
        "domain", "documents read", "bytes read", "documents kept", "bytes kept", "of its bytes", "|", "tokens",
        "bytes a token",
    )  # fmt: skip
    return table(heads, rows)


def _origins(report: Report, palette: Palette) -> Html:
    rows: list[list[Child]] = [
        [palette.label(one.name), _most(one.sources), _most(one.licences), _most(one.languages)]
        for one in report.domains
    ]
    heads = ("domain", "documents of sources|", "of licences|", "of languages|")
    return el("details", el("summary", "Sources, licences and languages of each domain"), table(heads, rows))


def _most(numbers: Mapping[str, int], shown: int = 40) -> str:
    names = sorted(numbers, key=lambda name: (-numbers[name], name))
    rest = len(names) - shown
    more = [f"and {rest:,} more"] if rest > 0 else []
    return ", ".join([*(f"{name} {numbers[name]:,}" for name in names[:shown]), *more]) or "-"


def _lengths(domain: Domain, mixtures: Sequence[Mixture], palette: Palette) -> Html:
    """Shares of documents: a mixture has other numbers of them."""
    title = f"{domain.name}: length of documents"
    drawn = [(mixture.name, mixture.lengths[domain.name]) for mixture in mixtures if domain.name in mixture.lengths]
    span = _span([domain.lengths, *(histogram for _, histogram in drawn)])
    if span is None:
        return el("figure", el("figcaption", title), nothing("No document was kept."))
    first, last = span
    edges = [max(edge, 0.5) for edge in domain.lengths.edges[first : last + 2]]
    shares = [_shares_of(domain.lengths)[first : last + 1]]
    shares += [_shares_of(histogram)[first : last + 1] for _, histogram in drawn]
    top = max(max(each, default=0.0) for each in shares) * 1.08
    frame = Frame(
        title,
        Axis("tokens of a document", edges[0], edges[-1], log=True, ticks=_every(edges), label=_binary),
        Axis("share of documents (%)", 0, top, label="{:g}".format),
    )
    marks = [
        frame.bar(
            low, high, part, palette(domain.name), f"{low:,.0f} to {high:,.0f} tokens: {many(number, 'document')}"
        )
        for low, high, part, number in zip(edges, edges[1:], shares[0], domain.lengths.counts[first:], strict=False)
    ]
    shown = [(palette(domain.name), f"kept, {many(domain.documents, 'document')}")]
    for place, ((name, histogram), part) in enumerate(zip(drawn, shares[1:], strict=True)):
        said = f"{name}, {many(sum(histogram.counts), 'copy', 'copies')}"
        marks.append(frame.steps(edges, part, f"m{place % 4}", said))
        shown.append((f"m{place % 4}", said))
    return frame.draw(marks, legend=legend(*shown))


def _qualities(domains: Sequence[Domain], palette: Palette) -> list[Html]:
    without = [domain.name for domain in domains if domain.quality is None]
    said = [nothing(f"No model was asked about {', '.join(without)}.")] if without else []
    drawn = [_quality(domain, domain.quality, palette) for domain in domains if domain.quality]
    return [*said, el("div", drawn, class_="charts")]


def _quality(domain: Domain, quality: Histogram, palette: Palette) -> Html:
    span = _span([quality, domain.rejected])
    assert span
    first, last = max(0, span[0] - 2), min(len(quality.counts) - 1, span[1] + 2)
    title = f"{domain.name}: quality"
    edges = quality.edges[first : last + 2]
    counts, rejected = quality.counts[first : last + 1], domain.rejected.counts[first : last + 1]
    most = max(sum(pair) for pair in zip(counts, rejected, strict=True))
    frame = Frame(
        title,
        Axis("log-odds of being good", edges[0], edges[-1], label="{:g}".format),
        Axis("documents", 0, most * 1.08),
    )
    marks: list[Html] = []
    for low, high, number, gone in zip(edges, edges[1:], counts, rejected, strict=False):
        said = f"{low:g} to {high:g}: {many(number, 'document')} kept, {gone:,} dropped"
        marks += [frame.bar(low, high, number + gone, "dropped", said)] if gone else []
        marks += [frame.bar(low, high, number, palette(domain.name), said)] if number else []
    inside = [(place, edge) for place, edge in enumerate(domain.bands, 1) if edges[0] <= edge <= edges[-1]]
    marks += [frame.upright(edge, "mark", f"band {place} from {value(edge)} on") for place, edge in inside]
    bands = [("mark", f"{len(domain.bands) + 1} bands of quality, by tokens")] if domain.bands else []
    dropped = [("dropped", f"dropped by a model, {sum(domain.rejected.counts):,}")]
    shown = dropped if any(domain.rejected.counts) else []
    return frame.draw(marks, legend=legend((palette(domain.name), "kept"), *shown, *bands))


def _span(histograms: Sequence[Histogram]) -> tuple[int, int] | None:
    """The first and the last bin that has something."""
    places = [place for one in histograms for place, number in enumerate(one.counts) if number]
    return (min(places), max(places)) if places else None


def _shares_of(histogram: Histogram) -> list[float]:
    whole = sum(histogram.counts) or 1
    return [100 * number / whole for number in histogram.counts]


def _every(edges: Sequence[float]) -> tuple[float, ...]:
    """Some of the edges, as ticks."""
    return tuple(edges[:: max(1, -(-len(edges) // 8))])


def _binary(number: float) -> str:
    """Lengths double: 512, 1k, 2k, as a spec writes them."""
    for power, prefix in ((1 << 20, "M"), (1 << 10, "k")):
        if number >= power:
            return f"{number / power:g}{prefix}"
    return f"{number:g}"


def _languages(report: Report) -> Html:
    sums: dict[str, int] = defaultdict(int)
    for domain in report.domains:
        for language, number in domain.languages.items():
            sums[language] += number
    if not sums:
        return nothing("No document's language was asked for.")
    names = sorted(sums, key=lambda name: (-sums[name], name))
    whole, most = sum(sums.values()), sums[names[0]]
    rows: list[list[Child]] = [
        [name, count(sums[name]), share(sums[name], whole), meter(sums[name], most, "kept")] for name in names[:30]
    ]
    if len(names) > 30:
        rest = sum(sums[name] for name in names[30:])
        rows.append([f"{len(names) - 30:,} others", count(rest), share(rest, whole), meter(rest, most, "kept")])
    return el("div", table(("language", "documents kept", "of those asked for", "|"), rows), class_="narrow")


def _classifiers(report: Report) -> list[Html]:
    if not report.classifiers:
        return [nothing("No classifier was used.")]
    rows: list[list[Child]] = [
        [
            one.role, ", ".join(one.labels), el("code", one.fingerprint), count(one.documents), _figure(one.accuracy),
            _figure(one.log_loss), _figure(one.calibration_error),
            ", ".join(f"{label} {_figure(area)}" for label, area in one.auc.items()) or "-",
        ]
        for one in report.classifiers
    ]  # fmt: skip
    heads = (
        "model", "labels|", "fingerprint|", "documents held out", "accuracy", "log loss", "calibration error",
        "area under the curve|",
    )  # fmt: skip
    return [table(heads, rows)]


def _figure(number: float | None) -> str:
    return "-" if number is None else f"{number:.4f}"
