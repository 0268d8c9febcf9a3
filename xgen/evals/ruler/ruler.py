"""RULER's tasks over the inputs that they need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xgen.data.errors import StoreError
from xgen.evals.ruler.haystack import Haystack
from xgen.evals.ruler.niah import InEssay, InNeedles, InNoise
from xgen.evals.ruler.planner import Fitted, Planner
from xgen.evals.ruler.qa import Documents
from xgen.evals.ruler.questions import Questions
from xgen.evals.ruler.recipe import Generator, Recipe, Sample
from xgen.evals.ruler.tasks import TASKS, NeedleTask, Task
from xgen.evals.ruler.tokens import Counter
from xgen.evals.ruler.tracking import Tracking
from xgen.evals.ruler.words import CommonWords, FrequentWords

FILL = 0.99  # of the length, at least; below 1024 tokens the last unit of a haystack may not fit


class Ruler:
    """The generator for one tokenizer, one haystack and one question set for each of `qa_1` and `qa_2`."""

    def __init__(
        self, counter: Counter, haystack: Haystack | None = None, questions: Mapping[str, Questions] | None = None
    ) -> None:
        self._counter, self._haystack, self._questions = counter, haystack, dict(questions or {})
        self._planners: dict[str, Planner] = {}

    def plan(self, task: str, length: int, count: int, seed: int, *, first: int = 0, reserved: int = 0) -> list[Recipe]:
        """Samples `first` to `first + count` at `length` tokens, of which a chat template gets `reserved`.

        Sample i is the same whatever `first` and `count`. Raises StoreError for an unknown task, an input that is
        missing, or a length that is too short for the task or too long for the inputs.
        """
        if min(count, first, seed, reserved) < 0:
            raise StoreError("count, first, seed, reserved", "one is negative", "write 0 or more")
        return self.planner(task).plan(length, range(first, first + count), seed, reserved=reserved)

    def render(self, recipe: Recipe) -> Sample:
        """The text. Tokens are counted only where the recipe is not exact."""
        return self.planner(recipe.task).render(recipe)

    def fit(self, recipe: Recipe) -> Fitted:
        """The text with its tokens, counted: never over its length."""
        return self.planner(recipe.task).fit(recipe)

    def source(self, task: str) -> str:
        """What the text around the answers is: a name and a digest of an input, or the scripts' own."""
        of = self._questions.get(task) or (self._haystack if getattr(TASKS[task], "haystack", "") == "essay" else None)
        return f"{of.name} ({of.digest})" if of else "synthetic"

    def planner(self, task: str) -> Planner:
        """Of one task. Raises StoreError for an unknown one, or an input that is missing."""
        if task not in TASKS:
            raise StoreError("task", f"{task} is not one of RULER's", f"write one of {', '.join(TASKS)}")
        if task not in self._planners:
            self._planners[task] = Planner(TASKS[task], self._made(TASKS[task]), self._counter)
        return self._planners[task]

    def _made(self, task: Task) -> Generator[Any]:
        counter = self._counter
        if isinstance(task, NeedleTask):
            if task.haystack == "essay":
                if self._haystack is None:
                    raise StoreError(task.name, "needs a haystack", "name a text with --haystack")
                return InEssay(task, counter, self._haystack)
            return (InNoise if task.haystack == "noise" else InNeedles)(task, counter)
        if task.kind == "qa":
            if task.name not in self._questions:
                fix = f"name a JSON file of {'SQuAD' if task.name == 'qa_1' else 'HotpotQA'} with --{task.name}"
                raise StoreError(task.name, "needs a question set", fix)
            return Documents(task, counter, self._questions[task.name])
        if task.kind == "vt":
            return Tracking(task, counter)
        return (CommonWords if task.kind == "cwe" else FrequentWords)(task, counter)
