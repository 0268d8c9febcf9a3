"""In-context recall: the value of one key in a JSON object of random keys and values (arXiv 2307.03172).

The prompt is that of nelson-liu/lost-in-the-middle (`kv_retrieval.prompt`, MIT); HELMET's json_kv asks in the same
words, after the object and with two solved examples.
"""

from __future__ import annotations

from xgen.evals.ruler.draws import rng
from xgen.evals.ruler.pool import Pool, pairs
from xgen.evals.ruler.recipe import Recipe, Sample
from xgen.evals.ruler.tasks import Task
from xgen.evals.ruler.tokens import Counter

_TEMPLATE = (
    "Extract the value corresponding to the specified key in the JSON object below.\n\nJSON data:\n{{{context}}}\n\n"
    'Key: "{query}"\n'
)
TASK = Task("json_kv", "kv", _TEMPLATE, "Corresponding value:", 100)


def depth_of(seed: int, length: int, index: int) -> float:
    """Where the key stands that a sample asks for: any place is as likely as another."""
    return round(float(rng(seed, TASK.name, length, index, "depth").random()), 3)


class KeyValues:
    """Makes the samples: pairs of random UUIDs, of which the recipe's depth says the place of the one asked for."""

    smallest = Pool.smallest

    def __init__(self, counter: Counter) -> None:
        self._pairs = pairs("uuids", "uuids")
        self._pool = Pool([f'"{key}": "{value}"' for key, value in self._pairs], ",\n ", counter)

    def draw(self, recipe: Recipe) -> list[int]:
        return self._pool.draw(recipe)

    def text(self, recipe: Recipe, drawn: list[int]) -> Sample:
        key, value = self._pairs[drawn[0]]
        context = self._pool.text(recipe, drawn)
        return Sample(TASK.template.format(context=context, query=key), TASK.answer_prefix, (value,))

    def frame(self, recipe: Recipe, drawn: list[int]) -> tuple[str, int]:
        return self.text(recipe, drawn).prompt, 0

    def fill(self, recipe: Recipe, drawn: list[int], room: int) -> tuple[int, tuple[int, ...], int]:
        return self._pool.fill(recipe, drawn, room)
