"""Runs against each other and against published scores, with intervals and a test of each difference."""

from xgen.evals.compare.comparison import Comparison, compare
from xgen.evals.compare.found import Side, find_sides
from xgen.evals.compare.write import write_comparison

__all__ = ["Comparison", "Side", "compare", "find_sides", "write_comparison"]
