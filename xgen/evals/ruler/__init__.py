"""RULER (arXiv 2404.06654): 13 tasks at any length, from a seed; a sample is numbers until it is read."""

from xgen.evals.ruler.haystack import Haystack
from xgen.evals.ruler.planner import Fitted, Planner
from xgen.evals.ruler.questions import Questions
from xgen.evals.ruler.recipe import Recipe, Sample
from xgen.evals.ruler.ruler import FILL, Ruler
from xgen.evals.ruler.score import Summary, by_length, score
from xgen.evals.ruler.tasks import LENGTHS, TASKS
from xgen.evals.ruler.tokens import Counter

__all__ = [
    "FILL", "LENGTHS", "TASKS", "Counter", "Fitted", "Haystack", "Planner", "Questions", "Recipe", "Ruler", "Sample",
    "Summary", "by_length", "score",
]  # fmt: skip
