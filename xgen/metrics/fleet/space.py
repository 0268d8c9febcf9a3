"""What the runs of each project hold on the disk of the run root: of those that have ended from a cache."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from xgen.cluster.index import DECIDED, statuses
from xgen.cluster.remembered import Entry, Remembered, cache_file
from xgen.cluster.removal import share_of
from xgen.cluster.status import QueueView
from xgen.metrics.fleet.facts import read_facts
from xgen.runs import RunDir
from xgen.runs.users import user_name
from xgen.spec import Quota

_TABLE = "space_2"  # another number when what is remembered changes


@dataclass(frozen=True)
class Held:
    """Bytes, of a project that has a quota."""

    project: str
    limit: int
    used: int
    users: list[tuple[str, int]]  # who holds most first


@dataclass(frozen=True)
class Spaces:
    """Bytes by user, of each project that was asked for. `unreadable`: names of runs that this person may not read."""

    users: dict[str, dict[str, int]]
    unreadable: list[str]


def held_by(run_root: Path, projects: Collection[str], ask: Callable[[list[RunDir]], QueueView]) -> Spaces:
    """Of a run that shares files nothing is remembered: what its part is others decide."""
    found, unreadable = {name: Counter[str]() for name in projects}, list[str]()
    table = Remembered(cache_file(run_root), _TABLE)
    known, new = table.read(), list[Entry]()
    for status in statuses(run_root, ask, cache_file(run_root)).rows if found else ():
        run, is_decided = RunDir(run_root / status.name), status.state in DECIDED
        entry = known.get(status.name) if is_decided else None
        owned = _remembered(entry[2]) if entry is not None else None
        try:
            if owned is None:
                if (facts := read_facts(run)) is None:
                    continue  # it belongs to no project that we could know
                owned = (facts.project, None)
                if is_decided and facts.project not in found:
                    new.append(Entry(status.name, 0, 0.0, json.dumps(owned)))
            project, size = owned
            if project not in found:
                continue
            mark = _mark(run.path)
            if size is None or entry is None or entry[0] != mark:
                part, is_shared = share_of(run.path)
                size = round(part)
                if is_decided and not is_shared:
                    new.append(Entry(status.name, mark, 0.0, json.dumps((project, size))))
            found[project][user_name(run.path.stat().st_uid)] += size
        except FileNotFoundError:  # it is being removed
            continue
        except OSError:
            unreadable.append(status.name)
    if new:
        table.write(new)
    return Spaces({name: dict(users) for name, users in found.items()}, unreadable)


def _remembered(text: str) -> tuple[str, int | None] | None:
    """Project, and bytes where they were measured; None where another version wrote it."""
    try:
        project, size = json.loads(text)
        return str(project), None if size is None else int(size)
    except (TypeError, ValueError):
        return None


def held(name: str, quota: Quota, users: dict[str, int]) -> Held:
    """Pure."""
    return Held(name, quota.size, sum(users.values()), sorted(users.items(), key=lambda item: -item[1]))


def _mark(path: Path) -> int:
    """Another one when something was made in or removed from the folders of a run or of its shards (checkpoints,
    exports, attempts), and when a checkpoint got or lost a name in another run."""
    folders = [path, *(one for one in path.iterdir() if one.is_dir())]
    for shard in path.glob("shards/*/*"):
        folders += [shard, *shard.glob("checkpoints")]
    times = [one.stat().st_mtime_ns for one in folders]
    for checkpoint in path.glob("checkpoints/*"):
        with suppress(NotADirectoryError), os.scandir(checkpoint) as entries:
            times += [entry.stat().st_ctime_ns for entry in entries if entry.is_file()][:1]
    return sum(times) % 2**62
