"""What the runs of each project hold on the disk of the run root: of those that have ended from a cache."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from xgen.cluster.index import DECIDED, statuses
from xgen.cluster.remembered import Entry, Remembered, cache_file
from xgen.cluster.removal import share_of
from xgen.cluster.status import QueueView
from xgen.metrics.fleet.facts import read_facts
from xgen.runs import RunDir
from xgen.runs.users import user_name
from xgen.spec import Project

_TABLE = "space_1"  # another number when what is remembered changes


@dataclass(frozen=True)
class Held:
    """Bytes, of one project. `limit` is None where there is none."""

    project: str
    limit: int | None
    used: int
    users: list[tuple[str, int]]  # who holds most first


def held_by(
    run_root: Path, projects: Collection[str], ask: Callable[[list[RunDir]], QueueView]
) -> dict[str, dict[str, int]]:
    """Bytes by user, of each of the projects; of what this person may not read none."""
    found = {name: Counter[str]() for name in projects}
    table = Remembered(cache_file(run_root), _TABLE)
    known, new = table.read(), []
    for status in statuses(run_root, ask, cache_file(run_root)).rows:
        run = RunDir(run_root / status.name)
        try:
            mark = _mark(run.path)
            entry = known.get(status.name) if status.state in DECIDED else None
            owned = _remembered(entry[2]) if entry is not None and entry[0] == mark else None
            if owned is None:
                facts = read_facts(run)
                owned = (facts.project if facts else "", round(share_of(run.path)))
                if status.state in DECIDED:
                    new.append(Entry(status.name, mark, 0.0, json.dumps(owned)))
            project, size = owned
            if project in found:
                found[project][user_name(run.path.stat().st_uid)] += size
        except OSError:  # it is being removed
            continue
    if new:
        table.write(new)
    return {name: dict(users) for name, users in found.items()}


def _remembered(text: str) -> tuple[str, int] | None:
    """Project and bytes; None where another version wrote it."""
    try:
        project, size = json.loads(text)
        return str(project), int(size)
    except (TypeError, ValueError):
        return None


def held(name: str, project: Project, users: dict[str, int]) -> Held:
    """Pure."""
    limit = project.quota.size if project.quota else None
    return Held(name, limit, sum(users.values()), sorted(users.items(), key=lambda item: -item[1]))


def _mark(path: Path) -> int:
    """Another one when something was made in or removed from the folders of a run: checkpoints, exports, attempts."""
    with os.scandir(path) as entries:
        times = [entry.stat().st_mtime_ns for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sum(times, path.stat().st_mtime_ns) % 2**62
