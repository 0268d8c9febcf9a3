"""Lines that are all alike, whose tokens are known: one of them is asked for, and others fill the text around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from xgen.data.errors import StoreError
from xgen.evals.ruler import vocabulary
from xgen.evals.ruler.draws import identifier, number, rng, walk
from xgen.evals.ruler.recipe import Recipe, upto
from xgen.evals.ruler.tokens import Counter

_SIZE = {"words": 32768, "uuids": 16384}  # lines; 256k tokens hold some 20,000 and 5,000


class Pool:
    """Of a recipe, `size` is the number of lines besides the one that is asked for: one at least."""

    smallest = 1

    def __init__(self, lines: Sequence[str], separator: str, counter: Counter) -> None:
        self.lines, self.separator = lines, separator
        self._tokens = counter.cached(
            "needles", separator.join(lines), lambda: counter.added(lines[0], [separator + line for line in lines])
        )
        self._by_tokens = np.argsort(self._tokens, kind="stable")
        self._sorted = self._tokens[self._by_tokens]

    def draw(self, recipe: Recipe) -> list[int]:
        """Lines by number: the one that is asked for, then as many others as the length could hold."""
        steps = recipe.length // int(self._sorted[0]) + 2
        drawn: list[int] = walk(recipe.random("needles"), len(self.lines), steps).tolist()
        return drawn

    def text(self, recipe: Recipe, drawn: list[int]) -> str:
        chosen = [*drawn[1 : 1 + recipe.size - len(recipe.extra)], *recipe.extra]
        place = (
            int(recipe.random("places").integers(recipe.size))
            if recipe.depth is None
            else min(int(recipe.depth * (recipe.size + 1)), recipe.size)
        )
        chosen.insert(place, drawn[0])
        return self.separator.join([self.lines[i] for i in chosen])

    def fill(self, recipe: Recipe, drawn: list[int], room: int) -> tuple[int, tuple[int, ...], int]:
        walked = drawn[2:]
        fitting, taken = upto(self._tokens[walked], room)
        if fitting == len(self.lines) - 2:
            what = f"length {recipe.length} is beyond its {len(self.lines)} lines"
            raise StoreError(recipe.task, what, "ask for a shorter one")
        used, extra = set(drawn[: 2 + fitting]), []
        # A line of UUIDs is longer than 1% of 4k tokens: the last ones give way to longer ones.
        for last in reversed(walked[:fitting][-16:]):
            if room - taken <= recipe.length // 256:
                break
            wanted = int(self._tokens[last]) + room - taken
            at = int(np.searchsorted(self._sorted, wanted, side="right")) - 1
            while at >= 0 and int(self._by_tokens[at]) in used:
                at -= 1
            if at < 0:
                break
            longer = int(self._by_tokens[at])
            used.add(longer)
            extra.append(longer)
            taken += int(self._tokens[longer] - self._tokens[last])
        return 1 + fitting, tuple(extra), taken


def key_maker(kind: str) -> Callable[[np.random.Generator], str]:
    if kind == "uuids":
        return identifier
    adjectives, nouns = vocabulary.listed("adjective"), vocabulary.listed("noun")
    return lambda random: f"{adjectives[random.integers(len(adjectives))]}-{nouns[random.integers(len(nouns))]}"


@cache
def pairs(keys: str, values: str) -> tuple[tuple[str, str], ...]:
    """Keys and values for a pool, no key twice."""
    random = rng("pool", keys, values)
    key, value = key_maker(keys), identifier if values == "uuids" else number
    found: dict[str, str] = {}
    while len(found) < _SIZE[keys]:
        found[key(random)] = value(random)
    return tuple(found.items())
