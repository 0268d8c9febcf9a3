"""Questions about documents among other documents."""

from __future__ import annotations

import numpy as np

from xgen.data.errors import StoreError
from xgen.evals.ruler.draws import walk
from xgen.evals.ruler.questions import Question, Questions
from xgen.evals.ruler.recipe import Recipe, Sample, upto
from xgen.evals.ruler.tasks import Task
from xgen.evals.ruler.tokens import Counter

_MOST = 262144  # documents numbered
_SHORT = "The end."
_DROPPED = 8  # documents, to fill the end better


class Documents:
    """The question's own documents, then others of their article, then any others, in random order."""

    smallest = 0  # documents beside the question's own

    def __init__(self, task: Task, counter: Counter, questions: Questions) -> None:
        self._task, self._set = task, questions
        documents = questions.documents
        self._tokens = counter.cached(
            "documents",
            "\0".join(documents),
            lambda: counter.added("Document 1:", ["\n" + document for document in documents]),
        )
        self._short = int(counter.added("Document 1:", ["\n" + _SHORT])[0])
        self._by_tokens = np.argsort(self._tokens, kind="stable")
        self._sorted = self._tokens[self._by_tokens]
        headings = [f"\n\nDocument {i}:" for i in range(1, min(len(documents), _MOST) + 1)]
        self._headings = counter.cached("headings", str(len(headings)), lambda: counter.added("end.", headings))

    def draw(self, recipe: Recipe) -> tuple[Question, list[int]]:
        """The question, and documents that may come beside its own, in the order in which they do."""
        question = self._set.questions[recipe.index % len(self._set.questions)]
        random = recipe.random("documents")
        related = [question.related[i] for i in random.permutation(len(question.related))]
        known = {*question.gold, *related}
        steps = len(known) + int(2 * recipe.length / self._tokens.mean()) + 64
        others = [i for i in walk(random, len(self._tokens), steps).tolist() if i not in known]
        return question, [*related, *others]

    def text(self, recipe: Recipe, drawn: tuple[Question, list[int]]) -> Sample:
        question, beside = drawn
        chosen = [*question.gold, *beside[: recipe.size], *recipe.extra]
        order = recipe.random("order").permutation(len(chosen))
        return self._sample(question, [self._set.documents[chosen[at]] for at in order.tolist()])

    def frame(self, recipe: Recipe, drawn: tuple[Question, list[int]]) -> tuple[str, int]:  # noqa: ARG002
        """With one short document in place of the question's own, whose tokens are known."""
        question, _ = drawn
        own = list(question.gold)
        documents = int(self._tokens[own].sum() + self._headings[1 : len(own)].sum())
        return self._sample(question, [_SHORT]).prompt, documents - self._short

    def fill(self, recipe: Recipe, drawn: tuple[Question, list[int]], room: int) -> tuple[int, tuple[int, ...], int]:
        question, beside = drawn
        own = len(question.gold)
        beside = beside[: len(self._headings) - own]
        costs = self._tokens[beside] + self._headings[own : own + len(beside)]
        fitting, taken = upto(costs, room)
        extra: tuple[int, ...] = ()
        # A document is longer than 1% of 4k tokens: the end is filled with those that fit best, the last ones anew.
        for dropped in range(min(fitting, _DROPPED) + 1):
            whole = fitting - dropped
            spent = int(costs[:whole].sum())
            found, filled = self._filling({*question.gold, *beside[:whole]}, own + whole, room - spent)
            if spent + filled > taken or not dropped:
                size, extra, taken = whole, found, spent + filled
            if room - taken <= recipe.length // 256:
                break
        if room - taken > recipe.length // 100:
            what = f"its documents fill {recipe.length - room + taken} of {recipe.length} tokens"
            fix = f"give a larger set to {recipe.task}, or ask for another length"
            raise StoreError(self._set.name, what, fix)
        return size, extra, taken

    def _sample(self, question: Question, documents: list[str]) -> Sample:
        context = "\n\n".join(f"Document {i}:\n{document}" for i, document in enumerate(documents, 1))
        text = self._task.template.format(context=context, query=question.text)
        return Sample(text, self._task.answer_prefix, question.answers)

    def _filling(self, used: set[int], numbered: int, room: int) -> tuple[tuple[int, ...], int]:
        """Up to three documents that are not `used`, each the longest that fits what is left, and their tokens."""
        found: list[int] = []
        taken = 0
        for heading in self._headings[numbered : numbered + 3].tolist():
            at = int(np.searchsorted(self._sorted, room - taken - heading, side="right")) - 1
            while at >= 0 and int(self._by_tokens[at]) in used:
                at -= 1
            if at < 0:
                break
            used.add(int(self._by_tokens[at]))
            found.append(int(self._by_tokens[at]))
            taken += int(self._sorted[at]) + heading
        return tuple(found), taken
