"""report.html: a page to see what a curation threw away, and why. Made from report.json alone."""

from xgen.data.curate.report_html.page import REPORT_PAGE, render_report

__all__ = ["REPORT_PAGE", "render_report"]
