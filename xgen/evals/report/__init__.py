"""The report of an evaluate run: `results.json`, `results.md` and pictures, from its records alone."""

from xgen.evals.report.results import Results, collect
from xgen.evals.report.write import choose, draw, write_report

__all__ = ["Results", "choose", "collect", "draw", "write_report"]
