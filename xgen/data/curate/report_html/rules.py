"""What every rule of a step dropped, with documents to read."""

from __future__ import annotations

import math
from collections.abc import Iterable

from xgen.data.curate.report_html.explain import explain_rule, explain_step, measured
from xgen.data.curate.report_html.palette import Palette
from xgen.data.curate.report_html.tables import documents, excerpt, nothing
from xgen.data.curate.report_model import Reason, Report, Sample, Step
from xgen.drawing.markup import Child, Html, el
from xgen.drawing.svg import meter
from xgen.drawing.wording import exact_size, share, value


def step_anchor(number: int) -> str:
    """Where a step is told of; the first one is reading."""
    return f"step-{number}" if number else "read"


def step_cards(report: Report, palette: Palette, names: Iterable[str]) -> list[Html]:
    wanted = set(names)
    return [
        step_card(number, step, palette) for number, step in enumerate(report.steps) if number and step.name in wanted
    ]


def step_card(number: int, step: Step, palette: Palette) -> Html:
    """A step with its rules, which open to samples."""
    title = el("h3", step.name, el("small", explain_step(step.name)))
    changed: Child = ""
    if step.cut:
        what = "It cut out of documents that stay: " if step.cut > 0 else "It put into documents that stay: "
        changed = el("p", what, exact_size(abs(step.cut)), class_="cut-text")
    if not step.reasons:
        kept = el("p", "No document was dropped: ", documents(step.kept), " went on.", class_="counts")
        return el("div", title, kept, changed, class_="card", id=step_anchor(number))
    kept = el("p", "kept ", documents(step.kept), " of ", documents(step.taken), class_="counts")
    heads = ("rule", "keeps", "documents", "of what came", "bytes", "", "by domain")
    head = el("div", [el("span", name) for name in heads], class_="rule heads")
    rules = [_reason(reason, step, palette) for reason in step.reasons]
    return el(
        "div", title, kept, changed, el("div", head, rules, class_="rules"), class_="card", id=step_anchor(number)
    )


def _reason(reason: Reason, step: Step, palette: Palette) -> Html:
    asked = explain_rule(reason.name)
    cells: list[Child] = [
        el("span", el("b", reason.name.removeprefix(f"{step.name}.")), el("small", asked)),
        el("span", _kept_side(reason)),
        el("span", f"{reason.dropped.documents:,}", class_="n"),
        el("span", share(reason.dropped.documents, step.taken.documents), class_="n"),
        el("span", exact_size(reason.dropped.bytes), class_="n"),
        el("span", meter(reason.dropped.documents, step.dropped.documents, "dropped")),
        el("span", _by_domain(reason, palette)),
    ]
    samples = [_sample(one, reason, step.name) for one in reason.samples]
    summary = el("summary", cells, class_="rule")
    return el("details", summary, samples or nothing("No sample was kept."))


def _kept_side(reason: Reason) -> str:
    """The threshold with the side that stays, where the rule's name says which."""
    rule = reason.name.rpartition(".")[2]
    sign = "≥" if rule.startswith("min_") else "≤" if rule.startswith("max_") else ""
    if not sign or reason.bound is None:
        return ""
    chance = f" (p = {1 / (1 + math.exp(-reason.bound)):.2g})" if rule == "min_probability" else ""
    return f"{sign} {value(reason.bound)}{chance}"


def _by_domain(reason: Reason, palette: Palette) -> list[Child]:
    names = sorted(reason.by_domain, key=lambda name: (-reason.by_domain[name].documents, name))
    shown: list[Child] = [
        el("span", el("i", class_=palette(name)), f"{name} {reason.by_domain[name].documents:,}", class_="domain")
        for name in names[:4]
    ]
    return [*shown, f"{len(names) - 4} more"] if len(names) > 4 else shown


def _sample(sample: Sample, reason: Reason, step: str) -> Html:
    facts = [f"document {sample.document:,}", sample.id, sample.domain, sample.source]
    if sample.value is not None:
        facts.append(measured(step, sample.value, reason.bound))
    where = el("div", sample.place) if sample.place else ""
    about = el("div", " · ".join(fact for fact in facts if fact), where, class_="about")
    if step == "leaks":
        item = (
            el("div", f"holds item {sample.other:,} of {reason.name.partition('.')[2]}")
            if sample.other is not None
            else ""
        )
        both: Child = [item, excerpt(sample.text)]
        if sample.other_text:
            both = [both, el("div", "the item:"), excerpt(sample.other_text)]
    elif sample.other is not None:
        stays = el("div", el("div", f"document {sample.other:,} stays", class_="kept-text"), excerpt(sample.other_text))
        goes = el("div", el("div", "this one goes", class_="dropped-text"), excerpt(sample.text))
        both = el("div", goes, stays, class_="pair")
    else:
        both = excerpt(sample.text)
    return el("div", about, both, class_="sample")
