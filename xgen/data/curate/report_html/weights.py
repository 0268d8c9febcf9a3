"""regmix.html: which weights were found, and how far the fit is to be believed. Made from regmix.json alone."""

from __future__ import annotations

from xgen.data.curate.regmix_model import ProxyRow, RegmixReport
from xgen.data.curate.report_html.document import page
from xgen.data.curate.report_html.tables import section, table, tile
from xgen.drawing.markup import Child, Html, el
from xgen.drawing.svg import Axis, Frame, legend, meter
from xgen.drawing.wording import count


def render_weights(report: RegmixReport) -> str:
    header = el("header", el("h1", report.name, el("small", "weights of domains, from small trainings (RegMix)")))
    main = el("main", _weights(report), _fit(report), _proxies(report))
    return page(f"{report.name}: weights", header, main)


def _weights(report: RegmixReport) -> Html:
    rows: list[list[Child]] = [
        [one.name, count(one.tokens), f"{one.share:.2%}", f"{one.weight:.2%}", meter(one.weight, 1, "kept"),
         f"{one.most:.2%}" if one.most < 1 else "-"]
        for one in report.domains
    ]  # fmt: skip
    heads = ("domain", "tokens of the corpus", "share of it", "weight found", "|", "at most, by its epochs")
    lead = "In weights.yaml, which a pretrain spec extends, and a mixture of a curation takes as balance: {regmix: …}."
    return section("weights", "Weights", lead, table(heads, rows))


def _fit(report: RegmixReport) -> Html:
    score = report.scores[0]
    tiles = [
        tile("rank correlation", f"{score.rank:.3f}", "of proxies held out: what picking a mixture depends on"),
        tile("R2", f"{score.r2:.3f}", f"of the {score.model} regression"),
        tile("loss predicted", f"{report.loss:.4f}", "of the weights found"),
        tile("of the corpus", f"{report.corpus_loss:.4f}", "predicted too"),
        tile("of the best proxy", f"{report.best.loss:.4f}", f"measured, proxy {report.best.number}"),
    ]
    rows: list[list[Child]] = [[one.model, f"{one.rank:.3f}", f"{one.r2:.3f}"] for one in report.scores]
    lead = "Each proxy's loss is predicted by a fit that has not seen it."
    return section(
        "fit", "Fit", lead, el("div", tiles, class_="tiles"), _chart(report),
        el("div", table(("regression", "rank correlation", "R2"), rows), class_="narrow"),
    )  # fmt: skip


def _chart(report: RegmixReport) -> Html:
    every = [each for row in report.proxies for each in (row.loss, row.predicted)]
    low, high = min(every), max(every)
    edge = 0.04 * (high - low)
    measured, predicted = (
        Axis(f"loss {word}", low - edge, high + edge, label="{:.3g}".format) for word in ("measured", "predicted")
    )
    frame = Frame("Proxies held out", measured, predicted)
    dots = [_dot(frame, row) for row in report.proxies]
    said = legend(("kept", "proxies"), ("mark", "as measured"))
    return frame.draw(frame.line(((low, low), (high, high)), "mark"), dots, legend=said)


def _dot(frame: Frame, row: ProxyRow) -> Html:
    said = ", ".join(f"{name} {weight:.1%}" for name, weight in row.weights.items() if weight)
    title = el("title", f"proxy {row.number}: {row.loss:.4f}, predicted {row.predicted:.4f}; {said}")
    return el("circle", title, cx=frame.x(row.loss), cy=frame.y(row.predicted), r=3, class_="kept")


def _proxies(report: RegmixReport) -> Html:
    names = [one.name for one in report.domains]
    rows: list[list[Child]] = [
        [str(one.number), f"{one.loss:.4f}", f"{one.predicted:.4f}", *(f"{one.weights[name]:.2%}" for name in names),
         *(f"{one.losses[name]:.4f}" for name in report.target)]
        for one in sorted(report.proxies, key=lambda row: row.loss)
    ]  # fmt: skip
    heads = ("proxy", "loss", "predicted", *names, *(f"loss of {name}" for name in report.target))
    left_out: list[list[Child]] = [[str(number), why] for number, why in report.diverged.items()]
    more = [el("h3", "Left out"), table(("proxy", "why it diverged|"), left_out)] if left_out else []
    target = ", ".join(f"{name} {weight:.3g}" for name, weight in report.target.items())
    return section("proxies", "Proxies", f"The loss is that of held-out text: {target}.", table(heads, rows), *more)
