"""fit: from the results of the proxies to OUT/weights.yaml, regmix.json and regmix.html."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xgen.data.curate.proxies import Proxies, ProxyResult, in_parts, proxies_of
from xgen.data.curate.regmix import Proposal, Regression, fit, propose
from xgen.data.curate.regmix_model import DomainRow, ModelScore, ProxyRow, RegmixReport
from xgen.data.curate.report_html.weights import render_weights
from xgen.data.curate.steps.folders import write_json, write_text
from xgen.data.curate.weights import WEIGHTS_FILE, write_weights
from xgen.data.errors import StoreError
from xgen.spec.regmix import LEAST_PROXIES, Regmix

FACTS_FILE, PAGE_FILE = "regmix.json", "regmix.html"
_DIGITS = 6  # what follows differs by the kind of processor


def write_fit(job: Regmix) -> None:
    """Raises StoreError for proxies without a result, and where too few are left."""
    report = fit_report(job)
    out = Path(job.out)
    write_json(out / FACTS_FILE, report)
    write_text(out / PAGE_FILE, render_weights(report))
    text = write_weights({row.name: row.weight for row in report.domains}, report.said)
    write_text(out / WEIGHTS_FILE, text)
    print(text, end="", flush=True)


def fit_report(job: Regmix) -> RegmixReport:
    proxies = proxies_of(job)
    results = _results(job, proxies)
    good = {number: result for number, result in results.items() if not result.diverged}
    diverged = {number: result.diverged for number, result in results.items() if result.diverged}
    if len(good) < LEAST_PROXIES:
        what = (
            f"{len(good)} of {len(results)} proxies are left, and the fit takes {LEAST_PROXIES}; diverged: "
            + "; ".join(f"{number} ({why})" for number, why in diverged.items())
        )
        more = f", or num_proxies: {-(-LEAST_PROXIES * len(results) // len(good)) + LEAST_PROXIES}" if good else ""
        fix = f"write a lower proxy.stages[0].lr.peak{more}"
        raise StoreError(job.out, what, fix)
    weights = np.array([[result.weights[name] for name in proxies.corpus] for result in good.values()])
    losses = np.array([_loss(result, proxies.target) for result in good.values()])
    regression = fit(tuple(proxies.corpus), weights, losses)
    proposal = propose(regression, proxies.corpus, proxies.max_weights)
    rows = tuple(
        ProxyRow(number=number, weights=result.weights, losses=result.losses, loss=loss, predicted=predicted)
        for (number, result), loss, predicted in zip(
            good.items(), losses.round(_DIGITS).tolist(), regression.held_out.round(_DIGITS).tolist(), strict=True
        )
    )
    return _report(job, proxies, regression, proposal, rows, diverged)


def _report(
    job: Regmix,
    proxies: Proxies,
    regression: Regression,
    proposal: Proposal,
    rows: tuple[ProxyRow, ...],
    diverged: dict[int, str],
) -> RegmixReport:
    whole = sum(proxies.corpus.values())
    (shares,) = in_parts(np.array([list(proposal.weights.values())])).tolist()
    return RegmixReport(
        name=job.name,
        domains=tuple(
            DomainRow(
                name=name, tokens=tokens, share=tokens / whole, most=proxies.max_weights.get(name, 1.0), weight=weight
            )
            for (name, tokens), weight in zip(proxies.corpus.items(), shares, strict=True)
        ),
        target=proxies.target,
        loss=round(proposal.loss, _DIGITS),
        corpus_loss=round(proposal.prior_loss, _DIGITS),
        scores=tuple(
            ModelScore(model=one.model, r2=round(one.r2, _DIGITS), rank=round(one.rank, _DIGITS))
            for one in regression.scores
        ),
        proxies=rows,
        diverged=diverged,
    )


def _results(job: Regmix, proxies: Proxies) -> dict[int, ProxyResult]:
    found = {proxy.number: proxy.result() for proxy in proxies.all}
    if missing := [number for number, result in found.items() if result is None]:
        what = f"{len(missing):,} of {len(found):,} proxies have no result, the first is {missing[0]}"
        raise StoreError(f"{job.out}/proxies", what, "run the step proxies first")
    return {number: result for number, result in found.items() if result}


def _loss(result: ProxyResult, target: dict[str, float]) -> float:
    return sum(weight * result.losses[name] for name, weight in target.items())
