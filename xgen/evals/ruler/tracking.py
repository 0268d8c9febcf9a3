"""Variable tracking: one chain of five assignments in noise, after a short solved example."""

from __future__ import annotations

from dataclasses import dataclass

from xgen.evals.ruler.draws import names, positions
from xgen.evals.ruler.recipe import Noise, Recipe, Sample
from xgen.evals.ruler.tasks import NOISE, Task
from xgen.evals.ruler.tokens import Counter

NUM_HOPS = 4
_EXAMPLE_TOKENS = 500


@dataclass(frozen=True)
class Chain:
    """Variables that all have one value, and the line that gives it to each."""

    value: str
    variables: list[str]

    @property
    def lines(self) -> list[str]:
        first, *others = self.variables
        hops = [f"VAR {name} = VAR {before} " for before, name in zip(self.variables, others, strict=False)]
        return [f"VAR {first} = {self.value}", *hops]


@dataclass(frozen=True)
class Tracked:
    """`places`: noise lines of the example before which its chain stands."""

    example: Chain
    places: list[int]
    chain: Chain


class Tracking:
    smallest = 5 * (NUM_HOPS + 2)  # sentences: a line more than the chain has

    def __init__(self, task: Task, counter: Counter) -> None:
        self._task = task
        self._noise = Noise(counter, NOISE)
        solved = self._solved(Chain("12345", ["AAA", "BBB", "CCC", "DDD", "EEE"]), self._noise.lines(self.smallest))
        room = _EXAMPLE_TOKENS - int(counter.count([solved])[0])
        self._example_lines = self._noise.fill(self.smallest, room)[0] // 5

    def draw(self, recipe: Recipe) -> Tracked:
        random = recipe.random("chain")
        example = Chain(str(random.integers(10000, 99999)), names(random, 3, NUM_HOPS + 1))
        places = positions(random, self._example_lines, NUM_HOPS + 1)
        return Tracked(example, places, Chain(str(random.integers(10000, 99999)), names(random, 5, NUM_HOPS + 1)))

    def text(self, recipe: Recipe, drawn: Tracked) -> Sample:
        num_lines = -(-recipe.size // 5)
        places = positions(recipe.random("places"), num_lines, NUM_HOPS + 1)
        solved = self._solved(drawn.example, self._hidden(drawn.example, drawn.places, 5 * self._example_lines))
        return self._sample(solved, drawn.chain, self._hidden(drawn.chain, places, recipe.size))

    def frame(self, recipe: Recipe, drawn: Tracked) -> tuple[str, int]:
        """Without the lines of noise but one, whose tokens are known."""
        first = self._noise.lines(5)
        solved = self._solved(drawn.example, first + drawn.example.lines)
        frame = self._sample(solved, drawn.chain, first + drawn.chain.lines).prompt
        return frame, (self._example_lines - 1 + recipe.size // 5 - 1) * self._noise.line

    def fill(self, recipe: Recipe, drawn: Tracked, room: int) -> tuple[int, tuple[int, ...], int]:  # noqa: ARG002
        return self._noise.fill(self.smallest, room)

    def _sample(self, solved: str, chain: Chain, lines: list[str]) -> Sample:
        text, prefix = self._asked(chain, lines)
        return Sample(f"{solved}\n\n{text}", prefix, tuple(chain.variables))

    def _hidden(self, chain: Chain, places: list[int], num_sentences: int) -> list[str]:
        lines = self._noise.lines(num_sentences)
        for nth, (place, line) in enumerate(zip(places, chain.lines, strict=True)):
            lines.insert(place + nth, line)
        return lines

    def _asked(self, chain: Chain, lines: list[str]) -> tuple[str, str]:
        of = {"query": chain.value, "num_v": len(chain.variables)}
        return self._task.template.format(context="\n".join(lines), **of), self._task.answer_prefix.format(**of)

    def _solved(self, chain: Chain, lines: list[str]) -> str:
        return "".join(self._asked(chain, lines)) + " " + " ".join(chain.variables)
