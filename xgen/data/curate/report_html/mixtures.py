"""The mixtures: what was asked for, what each domain, source and band of quality gives, what could not be, and why."""

from __future__ import annotations

from collections import defaultdict

from xgen.data.curate.report_html.palette import Palette
from xgen.data.curate.report_html.tables import nothing, section, table, tile
from xgen.data.curate.report_model import Mixture, PlanRow, Report
from xgen.drawing.markup import Child, Html, el
from xgen.drawing.svg import meter
from xgen.drawing.wording import count, many, share

_ROWS = 200  # of the whole plan
_SOURCES = 12  # at first sight


def mixtures(report: Report, palette: Palette) -> Html:
    lead = (
        "The plan is exact: tokens are counted in the store that was written, copies follow the table of frequencies."
    )
    if not report.mixtures:
        return section("mixtures", "Mixtures and budgets", lead, nothing("No mixture was asked for."))
    judged = {domain.name for domain in report.domains if domain.bands}
    cards = [_card(number, mixture, judged, palette) for number, mixture in enumerate(report.mixtures)]
    return section("mixtures", "Mixtures and budgets", lead, *cards)


def _card(number: int, mixture: Mixture, judged: set[str], palette: Palette) -> Html:
    met = mixture.written == mixture.budget
    tiles = [
        tile("asked for", count(mixture.budget), "tokens"),
        tile("planned", count(mixture.planned), "tokens"),
        tile("written", count(mixture.written), "tokens, counted in the store", class_="good" if met else "warn"),
        tile("documents", count(mixture.documents), "with at least one copy"),
    ]
    unmet = el("ul", [el("li", line) for line in mixture.unmet], class_="unmet")
    said = unmet if mixture.unmet else el("p", "All that was asked for is there.", class_="kept-text")
    return el(
        "div", el("h3", mixture.name, el("small", "folder ", el("code", mixture.store))),
        el("div", tiles, class_="tiles"), said, el("h4", "Domains"), _quotas(mixture, palette),
        el("div", _bands(mixture, judged, palette), _copies(mixture), class_="charts"),
        el("h4", "Sources"), *_sources(mixture, palette), _all_rows(mixture, judged, palette),
        class_="card", id=f"mixture-{number}",
    )  # fmt: skip


def _quotas(mixture: Mixture, palette: Palette) -> Html:
    if not mixture.quotas:
        return nothing("No domain has a share.")
    most = max(max(quota.tokens, quota.wanted) for quota in mixture.quotas)
    rows: list[list[Child]] = [
        [
            palette.label(one.domain), one.part, count(one.documents), count(one.supply), count(one.cap),
            count(one.wanted), count(one.tokens),
            share(one.tokens, mixture.planned),
            meter(one.tokens, most, "cut" if one.tokens < one.wanted else palette(one.domain)),
            f"{one.epochs:.2f}",
        ]
        for one in mixture.quotas
    ]  # fmt: skip
    heads = (
        "domain", "part", "documents", "tokens of one pass", "at most", "wanted", "given", "of the mixture", "|",
        "passes",
    )  # fmt: skip
    return table(heads, rows, left=2)


def _bands(mixture: Mixture, judged: set[str], palette: Palette) -> Html:
    """Domain by band: how often a token is seen. A domain that no model was asked about has a column of its own."""
    title = "How often a token is seen, by domain and band of quality (9 is the best)"
    planned: dict[tuple[str, str], int] = defaultdict(int)
    supply: dict[tuple[str, str], int] = defaultdict(int)
    for row in mixture.rows:
        planned[row.domain, _band(row, judged)] += row.planned
        supply[row.domain, _band(row, judged)] += row.tokens
    if not supply:
        return el("figure", el("figcaption", title), nothing("There is no plan."))
    bands = sorted({band for _, band in supply}, key=lambda band: (len(band), band))
    most = max(planned[key] / supply[key] for key in supply) or 1.0

    def cell(domain: str, band: str) -> Html:
        if (domain, band) not in supply:
            return el("td", "", class_="n")
        times = planned[domain, band] / supply[domain, band]
        said = f"{planned[domain, band]:,} tokens of {supply[domain, band]:,}"
        return el("td", f"{times:.2f}", class_="n heat", style=f"--heat:{times / most:.3f}", title=said)

    names = palette.order({domain for domain, _ in supply})
    head = el("tr", el("th", "domain"), [el("th", band, class_="n") for band in bands])
    body = [el("tr", el("td", palette.label(name)), [cell(name, band) for band in bands]) for name in names]
    drawn = el("table", el("thead", head), el("tbody", body))
    return el("figure", el("figcaption", title), el("div", drawn, class_="scroll"))


def _band(row: PlanRow, judged: set[str]) -> str:
    return str(row.band) if row.domain in judged else "not judged"


def _copies(mixture: Mixture) -> Html:
    title = "Copies of documents"
    if not mixture.copies:
        return el("figure", el("figcaption", title), nothing("There is no document."))
    most = max(one.documents for one in mixture.copies)
    rows = [
        [
            count(one.copies) if one.copies else "none",
            count(one.documents),
            meter(one.documents, most, "kept" if one.copies else "rest"),
        ]
        for one in mixture.copies[:_ROWS]
    ]
    return el("figure", el("figcaption", title), table(("copies", "documents", "|"), rows))


def _sources(mixture: Mixture, palette: Palette) -> list[Html]:
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * 5)
    for row in mixture.rows:
        numbers = (row.documents, row.tokens, row.taken, row.copies, row.planned)
        own = sums[row.domain, row.source]
        sums[row.domain, row.source] = [a + b for a, b in zip(own, numbers, strict=True)]
    if not sums:
        return [nothing("There is no plan.")]
    most = max(own[4] for own in sums.values())
    ordered = sorted(sums, key=lambda key: (-sums[key][4], key))
    rows: list[list[Child]] = []
    for domain, source in ordered[:_ROWS]:
        own = sums[domain, source]
        bar = meter(own[4], most, palette(domain))
        rows.append([palette.label(domain), source, *(count(number) for number in own), bar, _times(own[4], own[1])])
    heads = ("domain", "source", "documents", "tokens", "documents taken", "copies", "tokens taken", "|", "repeats")
    shown = [table(heads, rows[:_SOURCES], left=2)]
    if len(ordered) > _SOURCES:
        said = el("summary", f"{len(ordered) - _SOURCES:,} sources more")
        shown.append(el("details", said, table(heads, rows[_SOURCES:], left=2), _more(len(ordered))))
    return shown


def _all_rows(mixture: Mixture, judged: set[str], palette: Palette) -> Html:
    ordered = sorted(mixture.rows, key=lambda row: (-row.planned, row.domain, row.source, row.band, row.size))
    rows: list[list[Child]] = [
        [
            palette.label(row.domain), row.source, _band(row, judged), count(row.size), count(row.documents),
            count(row.tokens), count(row.taken), count(row.copies), count(row.planned), _times(row.planned, row.tokens),
        ]
        for row in ordered[:_ROWS]
    ]  # fmt: skip
    heads = (
        "domain", "source", "band", "in clusters from", "documents", "tokens", "documents taken", "copies",
        "tokens taken", "repeats",
    )  # fmt: skip
    said = f"the whole plan, by domain, source, band and cluster size: {many(len(ordered), 'row')}"
    return el("details", el("summary", said), table(heads, rows, left=2), _more(len(ordered)))


def _times(planned: int, there: int) -> str:
    return f"{planned / there:.2f}" if there else "-"


def _more(rows: int) -> Child:
    return el("p", f"and {rows - _ROWS:,} rows more, in report.json", class_="faint") if rows > _ROWS else ""
