"""What the tasks of a spec are, as lm-eval says: asked once, then read from a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from xgen.evals.harness.entries import Entry, entries_of
from xgen.evals.harness.process import answers, offline
from xgen.runs import Refused, write_atomic
from xgen.spec.evaluate import Harness


class Part(BaseModel):
    """A task of lm-eval. `first`: the index that its first document has among those of the whole."""

    model_config = ConfigDict(frozen=True)

    task: str
    documents: int
    first: int


class Described(BaseModel):
    """What has one score: a task, or a group that lm-eval averages over all its documents. `entry`: of which it is."""

    model_config = ConfigDict(frozen=True)

    entry: str
    name: str
    metric: str
    parts: tuple[Part, ...]

    def indices(self, samples: int | None) -> Iterator[int]:
        """Of the first so many documents of every part, as lm-eval's --limit takes them; None: of all."""
        for part in self.parts:
            yield from range(part.first, part.first + min(part.documents, samples or part.documents))

    def place(self, index: int) -> tuple[str, int]:
        """Task, and number of the document in it."""
        part = next(part for part in reversed(self.parts) if part.first <= index)
        return part.task, index - part.first


_FILE = TypeAdapter(tuple[Described, ...])


def order_of(harness: Harness, entries: tuple[Entry, ...], *, may_fetch: bool = False) -> dict[str, Any]:
    """What the child is told, of tasks alone."""
    datasets = None if may_fetch else harness.datasets or "the files of harness.include"
    return {
        "include": harness.include, "datasets": datasets, "model": None,
        "entries": [entry.model_dump() for entry in entries],
    }  # fmt: skip


def describe(harness: Harness, cache: Path) -> tuple[Described, ...]:
    """In the order of the spec. Raises Refused, RuntimeError."""
    entries = entries_of(harness)
    file = cache / f"harness-{_key(harness, entries)}.json"
    try:
        return _FILE.validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        described = told(answers(harness.python, order_of(harness, entries), environment_of(harness, cache)))
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, _FILE.dump_json(described, indent=1).decode())
        return described


def environment_of(harness: Harness, cache: Path) -> dict[str, str]:
    """Of a process that reads data sets, and writes into the cache alone."""
    datasets = Path(harness.datasets).absolute() if harness.datasets else None
    return offline(datasets, cache.absolute() / "harness")


def told(
    lines: Iterable[Mapping[str, Any]], tell: Callable[[Described], None] = lambda _: None
) -> tuple[Described, ...]:
    """What lm-eval says of tasks; each is told as it comes. Raises Refused, RuntimeError."""
    found: list[Described] = []
    for line in lines:
        found.append(_described(line["task"]))
        tell(found[-1])
    names = [one.name for one in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Refused(f"harness.tasks: {twice} is named twice, by itself or by a group; leave one out")
    return tuple(found)


def _described(line: Mapping[str, Any]) -> Described:
    parts, first = [], 0
    for task, documents in line["parts"]:
        parts.append(Part(task=task, documents=documents, first=first))
        first += documents
    return Described(entry=line["entry"], name=line["name"], metric=line["metric"], parts=tuple(parts))


def _key(harness: Harness, entries: tuple[Entry, ...]) -> str:
    """Of all that the answer depends on: tasks, data sets, and the files of one's own as they are."""
    own = sorted(path for path in Path(harness.include).rglob("*") if path.is_file()) if harness.include else []
    seen = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in own]
    of = [[entry.model_dump() for entry in entries], harness.python, harness.datasets, harness.include, seen]
    return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16]
