"""The page: one file that needs nothing else."""

from __future__ import annotations

from pathlib import Path

from xgen.data.curate.report_html.cuts import leaks, shared_lines
from xgen.data.curate.report_html.document import page
from xgen.data.curate.report_html.domains import domains
from xgen.data.curate.report_html.duplicates import duplicates
from xgen.data.curate.report_html.filtering import filtering
from xgen.data.curate.report_html.mixtures import mixtures
from xgen.data.curate.report_html.overview import overview
from xgen.data.curate.report_html.palette import Palette
from xgen.data.curate.report_html.reading import reading
from xgen.data.curate.report_html.tables import section, table
from xgen.data.curate.report_model import Report
from xgen.drawing.markup import Child, Html, el

REPORT_PAGE = "report.html"
_SCRIPT = Path(__file__).with_name("page.js")
_PLACES = (
    ("overview", "Funnel"),
    ("read", "Read"),
    ("filters", "Filters"),
    ("duplicates", "Duplicates"),
    ("lines", "Lines"),
    ("leaks", "Leaks"),
    ("domains", "Domains"),
    ("mixtures", "Mixtures"),
    ("recipe", "Recipe"),
)


def render_report(report: Report) -> str:
    """report.html. The same report gives the same page."""
    palette = Palette.of(report)
    header = el("header", el("h1", report.name, el("small", "what a curation kept and dropped")), _navigation())
    main = el(
        "main", overview(report, palette), reading(report), filtering(report, palette), duplicates(report, palette),
        shared_lines(report, palette), leaks(report, palette), domains(report, palette), mixtures(report, palette),
        _recipe(report),
    )  # fmt: skip
    return page(f"{report.name}: what was curated", header, main, script=_SCRIPT.read_text(encoding="utf-8"))


def _navigation() -> Html:
    return el("nav", [el("a", name, href=f"#{anchor}") for anchor, name in _PLACES])


def _recipe(report: Report) -> Html:
    rows: list[list[Child]] = [
        ["recipe", el("code", report.recipe), "the spec, the inputs, the models: the same recipe gives the same bytes"],
        ["xgen", el("code", report.xgen), f"its version; this report has the form {report.version}"],
    ]
    rows += [
        [f"mixture {one.name}", el("code", one.fingerprint), f"of the store in {one.store}"] for one in report.mixtures
    ]
    rows += [[f"model {one.role}", el("code", one.fingerprint), ", ".join(one.labels)] for one in report.classifiers]
    lead = "What the corpus follows from. manifest.json beside this page has the hash of every file."
    return section("recipe", "Recipe and hashes", lead, table(("what", "hash|", "|"), rows))
