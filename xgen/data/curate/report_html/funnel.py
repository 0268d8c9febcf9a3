"""The funnel: what every step kept, by domain, and what it threw away; then the tokens of the mixtures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from xgen.data.curate.report_html.explain import explain_step
from xgen.data.curate.report_html.palette import Palette
from xgen.data.curate.report_html.reading import unreadable
from xgen.data.curate.report_html.rules import step_anchor
from xgen.data.curate.report_html.tables import documents
from xgen.data.curate.report_model import Count, Mixture, Report, Step
from xgen.drawing.markup import Child, Html, el
from xgen.drawing.svg import picture
from xgen.drawing.wording import exact_size, many, share, tokens

_WIDTH, _GAP, _FALL, _BAR = 1000.0, 6.0, 24.0, 20.0  # of a row's picture: it is stretched to the column's width
_MEASURES = ("bytes", "documents")
_SHOWN = 3  # reasons of a step


def funnel(report: Report, palette: Palette) -> Html:
    first = report.steps[0]
    rows = [_row(_name(0, first), _first(first, palette), _first_said(report, first), "first")]
    for number, step in enumerate(report.steps[1:], 1):
        drawn = [el("div", _fall(step, first.kept, measure, palette), class_=f"by-{measure}") for measure in _MEASURES]
        rows.append(_row(_name(number, step), drawn, _lost(step, first.kept)))
    return el(
        "div",
        *_switch(),
        palette.legend(("dropped", "dropped"), ("cut", "cut out of documents that stay")),
        el("div", rows, _tokens(report, palette), class_="funnel"),
        class_="flow",
    )


def _switch() -> list[Html]:
    parts = []
    for measure in _MEASURES:
        checked = "" if measure == "bytes" else None
        parts.append(el("input", type="radio", name="measure", id=f"in-{measure}", checked=checked))
        parts.append(el("label", f"by {measure}", for_=f"in-{measure}"))
    return parts


def _row(name: Child, drawn: Child, said: Child, class_: str = "") -> Html:
    cells = [el("div", cell, class_=kind) for kind, cell in (("step", name), ("drawn", drawn), ("lost", said))]
    return el("div", cells, class_=f"row {class_}".rstrip())


def _name(number: int, step: Step) -> list[Html]:
    return [
        el("a", step.name, href=f"#{step_anchor(number)}", title=explain_step(step.name) or None),
        el("small", "left: " if number else "", documents(step.kept)),
    ]


def _first(first: Step, palette: Palette) -> list[Html]:
    return [
        el(
            "div",
            _bar(_amounts(first, "kept", measure, palette), palette, _scale(first.kept, measure)),
            class_=f"by-{measure}",
        )
        for measure in _MEASURES
    ]


def _first_said(report: Report, first: Step) -> list[Child]:
    quarantined = unreadable(report)
    said = [el("b", many(quarantined, "record"), class_="dropped-text"), " could not be read"]
    lines: list[Child] = [el("div", said) if quarantined else el("div", "every record could be read")]
    files = sum(item.files for item in report.inputs)
    return [*lines, el("small", f"{many(len(first.by_domain), 'domain')} in {many(files, 'file')}")]


def _lost(step: Step, read: Count) -> list[Child]:
    dropped = step.dropped
    cut: list[Child] = []
    if step.cut:
        what = "cut" if step.cut > 0 else "put in"
        cut = [" ", el("span", what, " ", exact_size(abs(step.cut)), class_="cut-text")]
    if not dropped.documents:
        return [el("div", cut or el("span", "nothing dropped", class_="faint"))]
    of = f" {share(dropped.documents, step.taken.documents)}"
    title = f"{share(dropped.documents, read.documents)} of all documents that were read"
    lost = el("b", "-", documents(dropped), class_="dropped-text", title=title)
    shown = [f"{_rule(reason.name, step)} {reason.dropped.documents:,}" for reason in step.reasons[:_SHOWN]]
    rest = len(step.reasons) - _SHOWN
    more = [f"{rest} more"] if rest > 0 else []
    if len(step.reasons) == 1:
        shown = [_rule(step.reasons[0].name, step)]
    every = ", ".join(f"{_rule(reason.name, step)} {reason.dropped.documents:,}" for reason in step.reasons)
    why = el("small", " · ".join([*shown, *more]), title=every)
    return [el("div", lost, el("span", of, class_="faint"), cut), why]


def _rule(name: str, step: Step) -> str:
    return name.removeprefix(f"{step.name}.")


def _fall(step: Step, read: Count, measure: str, palette: Palette) -> Html:
    """From the bar above to the bar of this step: each domain goes on on the left, what it loses to the right."""
    scale = _scale(read, measure)
    above, below, dropped = (_amounts(step, what, measure, palette) for what in ("taken", "kept", "dropped"))
    cut = {name: max(0, above[name] - below[name] - dropped[name]) for name in above}
    kept, all_cut, all_dropped = (sum(amounts.values()) for amounts in (below, cut, dropped))
    ribbons, reds = [], []
    top = left = 0.0
    right = {"cut": kept * scale + _GAP, "dropped": (kept + all_cut) * scale + _GAP}
    for name, amount in above.items():
        ribbons.append(_ribbon(top, left, below[name] * scale, name))
        end = top + amount * scale
        for class_, part in (("dropped", dropped[name]), ("cut", cut[name])):
            if width := part * scale:
                end -= width
                reds.append(_ribbon(end, right[class_], width, class_))
                right[class_] += width
        top += amount * scale
        left += below[name] * scale
    title = f"{step.name}: {kept:,} {measure} kept, {all_dropped:,} dropped"
    title += f", {all_cut:,} cut out" if all_cut else ""
    return picture(
        int(_WIDTH), int(_FALL + _BAR), title, el("g", ribbons, class_="ribbons"), el("g", reds, class_="ribbons"),
        _stack(below, palette, scale, _FALL), _rest(kept * scale + _GAP, all_cut * scale, all_dropped * scale),
        stretch=True,
    )  # fmt: skip


def _rest(left: float, cut: float, dropped: float) -> list[Html]:
    """The part of a step's bar that does not go on."""
    rects = []
    for width, class_ in ((cut, "cut"), (dropped, "dropped")):
        if width > 0:
            shown = max(width, 1.5)  # little is more than nothing
            rects.append(el("rect", x=left, y=_FALL, width=shown, height=_BAR, class_=class_))
            left += shown
    return rects


def _bar(amounts: Mapping[str, int], palette: Palette, scale: float, mark: float | None = None) -> Html:
    title = ", ".join(f"{palette.name_of(name)} {amount:,}" for name, amount in amounts.items())
    line = el("line", x1=mark, x2=mark, y1=0, y2=_BAR, class_="budget") if mark is not None else ""
    return picture(int(_WIDTH), int(_BAR), title or "nothing", _stack(amounts, palette, scale, 0.0), line, stretch=True)


def _stack(amounts: Mapping[str, int], palette: Palette, scale: float, y: float) -> list[Html]:
    rects, left = [], 0.0
    for name, amount in amounts.items():
        if amount:
            title = el("title", f"{palette.name_of(name)}: {amount:,}")
            rects.append(el("rect", title, x=left, y=y, width=amount * scale, height=_BAR, class_=name))
        left += amount * scale
    return rects


def _ribbon(top: float, bottom: float, width: float, class_: str) -> Html:
    """A band that goes down from one bar to the next."""
    middle, right, right_below = _FALL / 2, top + width, bottom + width
    path = (
        f"M{top:.2f} 0C{top:.2f} {middle} {bottom:.2f} {middle} {bottom:.2f} {_FALL}"
        f"L{right_below:.2f} {_FALL}C{right_below:.2f} {middle} {right:.2f} {middle} {right:.2f} 0Z"
    )
    return el("path", d=path, class_=class_)


def _amounts(step: Step, what: str, measure: str, palette: Palette) -> dict[str, int]:
    """Of what was taken, kept or dropped, by class."""
    return palette.stacked({name: _of(getattr(flow, what), measure) for name, flow in step.by_domain.items()})


def _of(counted: Count, measure: str) -> int:
    return counted.bytes if measure == "bytes" else counted.documents


def _scale(read: Count, measure: str) -> float:
    """Width of a byte or a document; room is left for the gap and for slivers that are drawn wider than they are."""
    return (_WIDTH - _GAP - 4) / max(1, _of(read, measure))


def _tokens(report: Report, palette: Palette) -> list[Html]:
    """Bars in tokens: what there is once, and what each mixture takes of it."""
    supply = {domain.name: domain.tokens for domain in report.domains}
    if not any(supply.values()):
        return []
    once = sum(supply.values())
    most = max([once, *(max(mixture.budget, mixture.planned) for mixture in report.mixtures)])
    scale = (_WIDTH - 4) / most
    name = [el("b", "tokenized"), el("small", f"{once:,} tokens")]
    said = el("small", many(sum(domain.documents for domain in report.domains), "document"), ", each once")
    rows = [_row(name, el("div", _bar(palette.stacked(supply), palette, scale)), said, "tokens first")]
    for number, mixture in enumerate(report.mixtures):
        amounts = palette.stacked(_by_domain(mixture))
        drawn = el("div", _bar(amounts, palette, scale, mixture.budget * scale))
        name = [el("a", mixture.name, href=f"#mixture-{number}"), el("small", f"{mixture.written:,} tokens")]
        rows.append(_row(name, drawn, _budget(mixture, once), "tokens"))
    return rows


def _budget(mixture: Mixture, once: int) -> list[Html]:
    asked = f"of {tokens(mixture.budget)} asked for, {mixture.written / once:.2f} times what there is"
    missing = mixture.budget - mixture.written
    if missing:
        said = el("b", f"{missing:,} tokens missing", class_="cut-text")
    else:
        said = el("b", "its budget to the token", class_="kept-text")
    wishes = [", ", el("span", many(len(mixture.unmet), "wish", "wishes"), " not met", class_="cut-text")]
    return [el("div", said, wishes if mixture.unmet else ""), el("small", asked)]


def _by_domain(mixture: Mixture) -> dict[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for quota in mixture.quotas:
        sums[quota.domain] += quota.tokens
    return dict(sums)
