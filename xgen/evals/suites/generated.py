"""Suites whose samples are made from a seed: planned in blocks, made when the model has room for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from itertools import groupby, islice

from xgen.evals.protocol import Item, Record, Subject, SuiteName
from xgen.evals.ruler import Planner, Recipe
from xgen.evals.suites.answers import Asked, answered, refusing
from xgen.evals.suites.prompts import Prompts

_BLOCK = 64  # samples that are planned at once
Worth = Callable[[str, Sequence[str], str], float]  # of a task, what an answer to it should contain, the answer


class Generated:
    """`worth`: what an answer scores; `source`: of a task, the text around what is asked for."""

    def __init__(
        self,
        name: SuiteName,
        items: Sequence[Item],
        seed: int,
        planner: Callable[[str], Planner],
        prompts: Prompts,
        worth: Worth,
        source: Callable[[str], str],
    ) -> None:
        self.name: SuiteName = name
        self._items, self._seed, self._planner, self._prompts = items, seed, planner, prompts
        self._worth, self._source = worth, source

    def items(self) -> Sequence[Item]:
        """Raises Refused where a task does not fit one of its lengths, before anything is computed."""
        return self._tried

    def score(self, subject: Subject, items: Sequence[Item], stopped: Callable[[], bool]) -> Iterator[Record]:
        with refusing(self.name):
            yield from answered(subject, self._asked(items), stopped)

    @cached_property
    def _tried(self) -> Sequence[Item]:
        tried: set[str] = set()
        with refusing(self.name):
            for (task, _), same in groupby(self._items, _kind):
                # Samples differ in what they need: all are tried at the shortest length, which comes first.
                self._plan(list(islice(same, 1 if task in tried else None)))
                tried.add(task)
        return self._items

    def _asked(self, items: Sequence[Item]) -> Iterator[Asked]:
        for (task, _), same in groupby(items, _kind):
            planner, block = self._planner(task), list(same)
            for first in range(0, len(block), _BLOCK):
                part = block[first : first + _BLOCK]
                for item, recipe in zip(part, self._plan(part), strict=True):
                    fitted = planner.fit(recipe, self._prompts.encode)
                    worth = partial(self._worth, task, fitted.sample.outputs)
                    yield Asked(item, fitted.ids, planner.task.answer_tokens, worth, self._source(task))

    def _plan(self, items: Sequence[Item]) -> list[Recipe]:
        """Of items of one task and length."""
        task, length = _kind(items[0])
        depths = [item.depth for item in items if item.depth is not None]
        indices, reserved = [item.index for item in items], self._prompts.reserved
        return self._planner(task).plan(length, indices, self._seed, depths or None, reserved)


def _kind(item: Item) -> tuple[str, int]:
    return item.task, item.length
