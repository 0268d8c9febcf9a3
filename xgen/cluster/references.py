"""Which runs another run refers to: its origin, the weights that it began with, what it scores, a pipeline's steps."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from xgen.runs import RunDir

# Small files of a run directory in which another run may be named.
_FILES = ("spec.yaml", "origin.json", "init.json", "pipeline.json", "step.json")
_NAME = re.compile(rb"(?<![a-z0-9-])[a-z0-9][a-z0-9-]*-[a-z0-9]{6}(?![a-z0-9-])")
_MOST = 1 << 20  # bytes that are read of such a file


def references(runs: Iterable[RunDir]) -> dict[str, set[str]]:
    """Names of the runs that name a run, by its name. Whatever looks like the name of one of `runs` counts: a reference
    too many keeps a run that could go, one too few would lose it."""
    runs = list(runs)
    names = {run.name for run in runs}
    found: dict[str, set[str]] = {}
    for run in runs:
        for other in _named_by(run.path) & names - {run.name}:
            found.setdefault(other, set()).add(run.name)
    return found


def _named_by(folder: Path) -> set[str]:
    found: set[str] = set()
    for name in _FILES:
        with suppress(OSError), open(f"{folder}/{name}", "rb") as file:  # noqa: PTH123 - fifty thousand of them
            found.update(match.decode() for match in _NAME.findall(file.read(_MOST)))
    return found


def free_of_references(candidates: Collection[str], referring: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """What keeps each of the candidates that cannot go: those that refer to it and stay. One that only such refer to as
    go with it can go."""
    going, kept = set(candidates), dict[str, set[str]]()
    while True:
        stay = {name: left for name in going if (left := referring.get(name, set()) - going)}
        if not stay:
            return kept
        kept |= stay
        going -= stay.keys()
