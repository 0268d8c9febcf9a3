"""The most common words of a numbered list (cwe), and the three most frequent words of a coded text (fwe)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xgen.evals.ruler import vocabulary
from xgen.evals.ruler.draws import Indices, walk
from xgen.evals.ruler.recipe import Recipe, Sample, most, upto
from xgen.evals.ruler.tasks import Task
from xgen.evals.ruler.tokens import Counter, Counts

NUM_COMMON = 10
ALPHA = 2.0
_ZETA = np.pi**2 / 6  # of ALPHA
_NUMBERS = 131072
_RANKS = 512  # 256k words hold 400 ranks that appear at all
_FEWEST = 5  # the noise, the three that are asked for, and one that is not


@dataclass(frozen=True)
class Times:
    """How often the common and the uncommon words are listed, there and in the solved list before."""

    common: int
    uncommon: int
    solved_words: int
    solved_common: int
    solved_uncommon: int

    @classmethod
    def at(cls, length: int) -> Times:
        return cls(6, 1, 20, 3, 1) if length < 4096 else cls(30, 3, 40, 10, 3)


@dataclass(frozen=True)
class Listed:
    """Words by number: those of the solved list, and those of the list, of which a shorter one takes the first."""

    words: tuple[str, ...]
    solved: Indices
    walked: Indices


class CommonWords:
    """Ten words ten times as often as all others (six times below 4k), after a solved list of forty words (twenty)."""

    smallest = NUM_COMMON + 1

    def __init__(self, task: Task, counter: Counter) -> None:
        self._task, self._counter = task, counter
        self._numbers = self._added("numbers", [f" {i}." for i in range(1, _NUMBERS)], "1. word")
        self._sums = np.concatenate(([0], np.cumsum(self._numbers)))
        self._tokens: dict[int, Counts] = {}
        self._filler = int(counter.added("1.", [" word"])[0])

    def draw(self, recipe: Recipe) -> Listed:
        words, times = self._words(recipe.length), Times.at(recipe.length)
        random = recipe.random("words")
        solved = walk(random, len(words), times.solved_words)
        # An entry is at least a number, its full stop and a word.
        return Listed(words, solved, walk(random, len(words), NUM_COMMON + recipe.length // 3 // times.uncommon))

    def text(self, recipe: Recipe, drawn: Listed) -> Sample:
        times = Times.at(recipe.length)
        solved = [drawn.words[i] for i in drawn.solved.tolist()]
        words = [drawn.words[i] for i in drawn.walked[: recipe.size].tolist()]
        order = recipe.random("order")
        example = _numbered(_repeated(solved, times.solved_common, times.solved_uncommon), order)
        context = _numbered(_repeated(words, times.common, times.uncommon), order)
        answers = " ".join(f"{i}. {word}" for i, word in enumerate(solved[:NUM_COMMON], 1))
        return self._sample(example, answers, context, words[:NUM_COMMON])

    def frame(self, recipe: Recipe, drawn: Listed) -> tuple[str, int]:
        """Three lists of one word; all that the lists really hold is known from tables."""
        times, costs = Times.at(recipe.length), self._costs(drawn.words)
        solved, listed = costs[drawn.solved], costs[drawn.walked[: self.smallest]]
        answers = int(solved[:NUM_COMMON].sum())
        words = (
            times.solved_common * answers
            + times.solved_uncommon * int(solved[NUM_COMMON:].sum())
            + answers
            + times.common * int(listed[:NUM_COMMON].sum())
            + times.uncommon * int(listed[NUM_COMMON:].sum())
        )
        num_solved = NUM_COMMON * times.solved_common + (len(solved) - NUM_COMMON) * times.solved_uncommon
        num_listed = NUM_COMMON * times.common + (self.smallest - NUM_COMMON) * times.uncommon
        numbers = sum(int(self._sums[num] - self._sums[1]) for num in (num_solved, NUM_COMMON, num_listed))
        frame = self._sample("1. word", "1. word", "1. word", []).prompt
        return frame, words + numbers - 3 * self._filler

    def fill(self, recipe: Recipe, drawn: Listed, room: int) -> tuple[int, tuple[int, ...], int]:
        times, walked = Times.at(recipe.length), drawn.walked[self.smallest :]
        first = NUM_COMMON * times.common + times.uncommon
        numbers = self._numbers[first : first + times.uncommon * len(walked)]
        numbers = numbers[: len(numbers) // times.uncommon * times.uncommon].reshape(-1, times.uncommon).sum(axis=1)
        costs = numbers + times.uncommon * self._costs(drawn.words)[walked[: len(numbers)]]
        fitting, taken = upto(costs, room)
        return self.smallest + fitting, (), taken

    def _sample(self, example: str, answers: str, context: str, outputs: list[str]) -> Sample:
        template, prefix = self._task.template, self._task.answer_prefix
        text = f"{template.format(context=example)}{prefix} {answers}\n{template.format(context=context)}"
        return Sample(text, prefix, tuple(outputs))

    def _words(self, length: int) -> tuple[str, ...]:
        """The scripts' list, or a larger one where a sample could need more than it has."""
        words = vocabulary.common()
        entry = 2 + float(self._costs(words).mean())  # a number is two tokens or more
        return words if length / entry / Times.at(length).uncommon < len(words) else vocabulary.large()

    def _costs(self, words: tuple[str, ...]) -> Counts:
        if len(words) not in self._tokens:
            self._tokens[len(words)] = self._added("words", [f" {word}" for word in words], "1.")
        return self._tokens[len(words)]

    def _added(self, what: str, texts: list[str], anchor: str) -> Counts:
        return self._counter.cached(what, "\0".join(texts), lambda: self._counter.added(anchor, texts))


class FrequentWords:
    """Words of six letters whose frequency falls with the square of their rank; the first rank is noise."""

    smallest = 64  # words: the ranks two to four appear nine, four and two times

    def __init__(self, task: Task, counter: Counter) -> None:
        self._task = task
        coded = vocabulary.coded()
        self._tokens = counter.cached(
            "coded", " ".join(coded), lambda: counter.added(coded[0], [f" {word}" for word in coded])
        )
        self._dots = int(counter.added(coded[0], [" ..."])[0])

    def draw(self, recipe: Recipe) -> Indices:
        ranks = max(_FEWEST, min(_RANKS, (recipe.length - self._task.answer_tokens) // 50))
        return walk(recipe.random("words"), len(self._tokens), ranks - 1)

    def text(self, recipe: Recipe, drawn: Indices) -> Sample:
        coded = vocabulary.coded()
        vocab = np.array(["...", *(coded[i] for i in drawn)], dtype=object)
        words = np.repeat(vocab, _frequencies(recipe.size, len(vocab)))
        recipe.random("order").shuffle(words)
        text = self._task.template.format(context=" ".join(words.tolist()))
        return Sample(text, self._task.answer_prefix, tuple(vocab[1:4]))

    def frame(self, recipe: Recipe, drawn: Indices) -> tuple[str, int]:
        return self.text(recipe, drawn).prompt, 0

    def fill(self, recipe: Recipe, drawn: Indices, room: int) -> tuple[int, tuple[int, ...], int]:  # noqa: ARG002
        tokens = np.concatenate(([self._dots], self._tokens[drawn]))
        first = int(_frequencies(self.smallest, len(tokens)) @ tokens)
        size = most(lambda size: int(_frequencies(size, len(tokens)) @ tokens) - first, self.smallest, room)
        return size, (), int(_frequencies(size, len(tokens)) @ tokens) - first


def _frequencies(num_words: int, num_ranks: int) -> Counts:
    """How often each rank appears among about `num_words` words."""
    return (num_words * np.arange(1.0, num_ranks + 1) ** -ALPHA / _ZETA).astype(np.int64)


def _repeated(words: list[str], common: int, uncommon: int) -> list[str]:
    return words[:NUM_COMMON] * common + words[NUM_COMMON:] * uncommon


def _numbered(words: list[str], random: np.random.Generator) -> str:
    return " ".join([f"{i}. {words[at]}" for i, at in enumerate(random.permutation(len(words)).tolist(), 1)])
