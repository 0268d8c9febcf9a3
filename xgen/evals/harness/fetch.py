"""Data sets of the harness, brought to the shared file system where there is a network, and read back without one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xgen.evals.harness.entries import entries_of
from xgen.evals.harness.process import answers, offline, online
from xgen.evals.harness.tasks import Described, order_of, told
from xgen.runs import Refused
from xgen.spec.evaluate import Harness


@dataclass(frozen=True)
class Fetched:
    """What a task came with. `bytes`: by which the folder grew, 0 where all was there."""

    name: str
    tasks: int
    documents: int
    bytes: int


def fetch(harness: Harness, tell: Callable[[Fetched], None], bars: bool) -> list[Fetched]:
    """Bring what is not there yet, then load all of it offline. Raises Refused, and RuntimeError where another try may
    help: what came stays."""
    if harness.datasets is None:
        raise Refused("harness.datasets: no folder is named; write one on the shared file system")
    folder, entries = Path(harness.datasets), entries_of(harness)
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Fetched] = []
    size = _size(folder)

    def came(task: Described) -> None:
        nonlocal size
        before, size = size, _size(folder)
        documents = sum(part.documents for part in task.parts)
        found.append(Fetched(task.name, len(task.parts), documents, size - before))
        tell(found[-1])

    there = told(answers(harness.python, order_of(harness, entries, may_fetch=True), online(folder, bars)), came)
    with tempfile.TemporaryDirectory() as own:
        without = offline(folder.absolute(), Path(own))
        if told(answers(harness.python, order_of(harness, entries), without)) != there:
            raise RuntimeError(f"harness.datasets: {folder} gives other documents offline; fetch into an empty one")
    return found


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
