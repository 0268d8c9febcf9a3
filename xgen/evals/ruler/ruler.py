"""Plans samples as recipes, and makes their text when it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xgen.data.errors import StoreError
from xgen.evals.ruler.haystack import Haystack
from xgen.evals.ruler.niah import InEssay, InNeedles, InNoise
from xgen.evals.ruler.qa import Documents
from xgen.evals.ruler.questions import Questions
from xgen.evals.ruler.recipe import Generator, Recipe, Sample
from xgen.evals.ruler.tasks import TASKS, NeedleTask, Task
from xgen.evals.ruler.tokens import Counter
from xgen.evals.ruler.tracking import Tracking
from xgen.evals.ruler.words import CommonWords, FrequentWords

FILL = 0.99  # of the length, at least
_SHORTEST = 1024  # tokens; below, example and question alone are too much for some tasks
_TRIED = 8  # samples that show whether a tokenizer's counts add up
_TRIED_LENGTH = 8192
_ROUNDS = 16


@dataclass(frozen=True)
class Fitted:
    """A sample whose tokens were counted: never over its length."""

    recipe: Recipe
    sample: Sample
    ids: list[int]  # of the prompt


class Ruler:
    """The generator for one tokenizer, one haystack and one question set for each of `qa_1` and `qa_2`."""

    def __init__(
        self, counter: Counter, haystack: Haystack | None = None, questions: Mapping[str, Questions] | None = None
    ) -> None:
        self._counter, self._haystack, self._questions = counter, haystack, dict(questions or {})
        self._generators: dict[str, Generator[Any]] = {}
        self._exact: dict[str, bool] = {}

    def plan(self, task: str, length: int, count: int, seed: int, *, first: int = 0, reserved: int = 0) -> list[Recipe]:
        """Samples `first` to `first + count` at `length` tokens, of which a chat template gets `reserved`.

        Sample i is the same whatever `first` and `count`. Raises StoreError for an unknown task, an input that is
        missing, or a length that is too short for the task or too long for the inputs.
        """
        if task not in TASKS:
            raise StoreError("task", f"{task} is not one of RULER's", f"write one of {', '.join(TASKS)}")
        if length < _SHORTEST:
            raise StoreError("length", f"{length} tokens is too short", f"write {_SHORTEST} or more")
        if min(count, first, seed, reserved) < 0:
            raise StoreError("count, first, seed, reserved", "one is negative", "write 0 or more")
        exact = self._adds_up(task)
        return list(self._planned(task, length, range(first, first + count), seed, reserved, exact))

    def render(self, recipe: Recipe) -> Sample:
        """The text. Tokens are counted only where the recipe is not exact."""
        if not recipe.exact:
            return self.fit(recipe).sample
        generator = self._generator(recipe.task)
        return generator.text(recipe, generator.draw(recipe))

    def fit(self, recipe: Recipe) -> Fitted:
        """The text with its tokens, counted. What is over, or leaves more than 1%, is made again with less or more.

        Tokenizers that merge across words make counts that do not add up: each round corrects by what the last missed.
        """
        generator = self._generator(recipe.task)
        drawn = generator.draw(recipe)
        limit = recipe.length - recipe.reserved - TASKS[recipe.task].answer_tokens
        enough = limit - recipe.length // 100
        best: Fitted | None = None
        wanted = recipe
        base = room = None
        for _ in range(_ROUNDS):
            sample = generator.text(wanted, drawn)
            ids = self._counter.encode(sample.prompt)
            if len(ids) <= limit and (best is None or len(ids) > len(best.ids)):
                best = Fitted(replace(wanted, tokens=len(ids), exact=True), sample, ids)
            if enough <= len(ids) <= limit:
                break
            if base is None or room is None:
                base = self._base(generator, recipe, drawn)
                room = wanted.tokens - base
            room += limit - len(ids) - recipe.length // 1024
            if room < 0 and best is None and wanted.size == generator.smallest:
                break
            size, extra, taken = generator.fill(recipe, drawn, max(room, 0))
            wanted = replace(recipe, size=size, extra=extra, tokens=base + taken)
        if best is None:
            raise _too_short(recipe, len(ids))
        return best

    def source(self, task: str) -> str:
        """What the text around the answers is: a name and a digest of an input, or the scripts' own."""
        of = self._questions.get(task) or (self._haystack if getattr(TASKS[task], "haystack", "") == "essay" else None)
        return f"{of.name} ({of.digest})" if of else "synthetic"

    def _base(self, generator: Generator[Any], recipe: Recipe, drawn: object) -> int:
        frame, beside = generator.frame(replace(recipe, size=generator.smallest, extra=()), drawn)
        return int(self._counter.count([frame])[0]) + beside

    def _planned(
        self, task: str, length: int, indices: Sequence[int], seed: int, reserved: int, exact: bool
    ) -> Iterator[Recipe]:
        generator = self._generator(task)
        smallest = [Recipe(task, length, seed, index, generator.smallest, (), 0, reserved, exact) for index in indices]
        drawn = [generator.draw(recipe) for recipe in smallest]
        frames = [generator.frame(recipe, of) for recipe, of in zip(smallest, drawn, strict=True)]
        bases = self._counter.count([text for text, _ in frames]) + [beside for _, beside in frames]
        # The small margin is for merges that the eight samples did not show.
        limit = length - reserved - TASKS[task].answer_tokens - length // 1024
        for recipe, of, base in zip(smallest, drawn, bases.tolist(), strict=True):
            if base > limit:
                raise _too_short(recipe, base)
            size, extra, taken = generator.fill(recipe, of, limit - base)
            yield replace(recipe, size=size, extra=extra, tokens=base + taken)

    def _adds_up(self, task: str) -> bool:
        """Whether planned and counted tokens are the same: tokenizers that split at words first, that is almost all."""
        if task not in self._exact:
            generator = self._generator(task)
            tried = list(self._planned(task, _TRIED_LENGTH, range(_TRIED), 0, 0, exact=True))
            texts = [generator.text(recipe, generator.draw(recipe)).prompt for recipe in tried]
            self._exact[task] = self._counter.count(texts).tolist() == [recipe.tokens for recipe in tried]
        return self._exact[task]

    def _generator(self, task: str) -> Generator[Any]:
        if task not in self._generators:
            self._generators[task] = self._made(TASKS[task])
        return self._generators[task]

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


def _too_short(recipe: Recipe, tokens: int) -> StoreError:
    what = f"sample {recipe.index} of {recipe.task} takes {tokens} tokens without a haystack"
    return StoreError(f"length {recipe.length}", what, "ask for a longer one")
