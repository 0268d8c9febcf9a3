"""The suites of samples that are made: RULER, one needle at every depth, recall of keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from xgen.evals import recall
from xgen.evals.protocol import Item
from xgen.evals.ruler import TASKS, Haystack, Planner, Questions, Ruler, score
from xgen.evals.ruler.niah import InEssay, InNoise
from xgen.evals.ruler.score import string_match_all
from xgen.evals.ruler.tasks import NeedleTask
from xgen.evals.suites.generated import Generated
from xgen.evals.suites.prompts import Prompts
from xgen.spec.evaluate import NeedleMap, Recall, RulerSuite

NEEDLE_TOKENS = 32  # of an answer: one number, where RULER's tasks have four UUIDs


def ruler(spec: RulerSuite, prompts: Prompts) -> Generated:
    """Raises StoreError for an input that is missing or is none."""
    haystack = Haystack.read(Path(spec.haystack)) if spec.haystack else None
    sets = {"qa_1": spec.qa_1, "qa_2": spec.qa_2}
    asked: dict[str, Questions] = {
        task: Questions.read(Path(path)) for task, path in sets.items() if path and task in spec.tasks
    }
    generator = Ruler(prompts.counter, haystack, asked)
    sources: dict[str, str] = {task: generator.source(task).replace("synthetic", "") for task in spec.tasks}
    items = [
        Item("ruler", task, length, index)
        for length in spec.lengths
        for task in spec.tasks
        for index in range(spec.samples)
    ]
    return Generated("ruler", items, spec.seed, generator.planner, prompts, _published, sources.__getitem__)


def needles(spec: NeedleMap, prompts: Prompts) -> Generated:
    """RULER's niah_single_1 in noise, or niah_single_2 in a text, at depths of its own. Raises StoreError."""
    haystack = Haystack.read(Path(spec.haystack)) if spec.haystack else None
    like = TASKS["niah_single_2" if haystack else "niah_single_1"]
    assert isinstance(like, NeedleTask)
    task = replace(like, name="essay" if haystack else "noise", answer_tokens=NEEDLE_TOKENS)
    counter = prompts.counter

    @cache
    def planner(_: str) -> Planner:
        return Planner(task, InEssay(task, counter, haystack) if haystack else InNoise(task, counter), counter)

    items = [
        Item("needles", task.name, length, index, round(number / (spec.depths - 1), 6))
        for length in spec.lengths
        for number in range(spec.depths)
        for index in range(spec.samples)
    ]
    source = f"{haystack.name} ({haystack.digest})" if haystack else ""
    return Generated("needles", items, spec.seed, planner, prompts, _contains, lambda _: source)


def recall_of(spec: Recall, prompts: Prompts) -> Generated:
    @cache
    def planner(_: str) -> Planner:
        return Planner(recall.TASK, recall.KeyValues(prompts.counter), prompts.counter)

    items = [
        Item("recall", recall.TASK.name, length, index, recall.depth_of(spec.seed, length, index))
        for length in spec.lengths
        for index in range(spec.samples)
    ]
    return Generated("recall", items, spec.seed, planner, prompts, _contains, lambda _: "")


def _published(task: str, outputs: Sequence[str], answer: str) -> float:
    return score(task, answer, outputs)


def _contains(task: str, outputs: Sequence[str], answer: str) -> float:  # noqa: ARG001
    return string_match_all(answer, outputs)
