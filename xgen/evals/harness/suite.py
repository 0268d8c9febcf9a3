"""The suite `harness`: tasks of lm-evaluation-harness, scored by a process of its own on the exported checkpoint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from xgen.evals.harness.entries import entries_of
from xgen.evals.harness.process import answers
from xgen.evals.harness.tasks import Described, describe, environment_of, order_of
from xgen.evals.protocol import Item, Record, Subject, SuiteName
from xgen.runs import Refused
from xgen.spec.evaluate import Harness

_OURS = ("pretrained", "dtype", "batch_size", "trust_remote_code")  # keys of the spec, or never


class HarnessSuite:
    """`cache`: a folder for what lm-eval says of its tasks. Raises Refused for what the spec cannot have."""

    name: SuiteName = "harness"

    def __init__(self, harness: Harness, cache: Path) -> None:
        if found := next((key for key in _OURS if key in harness.arguments), None):
            fix = "it is never set" if found == "trust_remote_code" else "harness.dtype and harness.batch are keys"
            raise Refused(f"harness.arguments: {found} is not for the model's arguments: {fix}; leave it out")
        self._harness, self._cache, self._entries = harness, cache, entries_of(harness)

    @cached_property
    def _tasks(self) -> dict[str, Described]:
        return {task.name: task for task in describe(self._harness, self._cache)}

    def items(self) -> Sequence[Item]:
        """The index counts the documents of all tasks of a group. Raises Refused, RuntimeError."""
        return [
            Item("harness", name, 0, index)
            for name, task in self._tasks.items()
            for index in task.indices(self._harness.samples)
        ]

    def score(self, subject: Subject, items: Sequence[Item], stopped: Callable[[], bool]) -> Iterator[Record]:
        """Up to `batch` samples are lost when it ends early. Raises Refused, RuntimeError."""
        from xgen.engine.opened import leave_gpu

        order = self._order(subject.export(self._harness.dtype), items)
        leave_gpu()
        names = {(task.entry, part.task): (task, part) for task in self._tasks.values() for part in task.parts}
        environment = environment_of(self._harness, self._cache)
        for line in answers(self._harness.python, order, environment, stopped):
            sample = line["sample"]
            task, part = names[sample["entry"], sample["part"]]
            yield _record(task.name, part.first + sample["doc"], sample)

    def _order(self, folder: Path, items: Sequence[Item]) -> dict[str, Any]:
        harness = self._harness
        wanted: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        metrics: dict[str, dict[str, str]] = defaultdict(dict)
        for item in items:
            task = self._tasks[item.task]
            part, index = task.place(item.index)
            wanted[task.entry][part].append(index)
            metrics[task.entry][part] = task.metric
        entries = [
            entry.model_dump() | {"parts": wanted[entry.name], "metrics": metrics[entry.name]}
            for entry in self._entries
            if entry.name in wanted
        ]
        model = {
            "kind": harness.model, "folder": str(folder), "dtype": harness.dtype, "batch": harness.batch,
            "arguments": harness.arguments, "chat": harness.chat,
        }  # fmt: skip
        return order_of(harness, self._entries) | {"model": model, "entries": entries}


def _record(task: str, index: int, sample: Mapping[str, Any]) -> Record:
    kept = {key: sample[key] for key in ("score", "values", "tokens", "seconds", "answer", "digest")}
    return Record(suite="harness", task=task, length=0, index=index, **kept)
