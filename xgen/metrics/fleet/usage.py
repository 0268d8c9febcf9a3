"""What all runs of a cluster have used since some time: from their events, and of what has ended from a cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from xgen.cluster.index import DECIDED, statuses
from xgen.cluster.remembered import Entry, Remembered, cache_file
from xgen.cluster.status import QueueView
from xgen.metrics.fleet.facts import Facts, Stage, read_facts
from xgen.runs import EventReader, RunDir
from xgen.runs.accounting import Use, account
from xgen.runs.rundir import orders_below
from xgen.runs.users import user_name

_TABLE = "usage_2"  # another number when what is remembered changes


@dataclass(frozen=True)
class Used:
    """One attempt of a run, or of one of its shards, and what its job held."""

    run: str
    name: str
    kind: str
    user: str
    project: str
    trains: bool  # or its phases are queue and work only
    num_gpus: int
    num_cpus: int
    num_nodes: int
    use: Use


@dataclass(frozen=True)
class Uses:
    """`unreadable`: names of runs whose files this person may not read. `error`: of a scheduler that did not answer."""

    rows: list[Used]
    unreadable: list[str]
    error: str


def uses_since(run_root: Path, ask: Callable[[list[RunDir]], QueueView], since: float, now: float) -> Uses:
    """Of each attempt that was under way after `since` (seconds since the epoch)."""
    listed = statuses(run_root, ask, cache_file(run_root))
    table = Remembered(cache_file(run_root), _TABLE)
    known, new = table.read(), []
    rows: list[Used] = []
    unreadable = []
    for status in listed.rows:
        run, orders = RunDir(run_root / status.name), orders_below(f"{run_root}/{status.name}")
        is_decided = status.state in DECIDED
        entry = known.get(status.name) if is_decided else None
        whole = _remembered(entry[2]) if entry is not None and entry[0] == orders else None
        try:
            if is_decided and whole is None:
                whole = _read(run, 0.0, now, is_over=True)
                last_change = max((one.use.ended for one in whole), default=0.0)
                new.append(Entry(status.name, orders, last_change, json.dumps([asdict(one) for one in whole])))
            part = None if whole is None else _after(whole, since)
            rows += _read(run, since, now, is_decided or status.state == "lost") if part is None else part
        except OSError:
            unreadable.append(status.name)
    if new:
        table.write(new)
    return Uses(rows, unreadable, listed.error)


def _remembered(text: str) -> list[Used] | None:
    """None where another version wrote it."""
    try:
        return [Used(**{**one, "use": Use(**one["use"])}) for one in json.loads(text)]
    except (TypeError, ValueError, KeyError):
        return None


def _after(rows: list[Used], since: float) -> list[Used] | None:
    """Of all that a run has used; None where an attempt was under way at `since`: its events have to say how much of it
    came after."""
    if any(one.use.started - one.use.queued < since < one.use.ended for one in rows):
        return None
    return [one for one in rows if one.use.ended > since]


def _read(run: RunDir, since: float, now: float, is_over: bool) -> list[Used]:
    """From the events. Raises OSError."""
    user, facts = user_name(run.path.stat().st_uid), read_facts(run) or Facts()
    name = facts.name or run.name.rpartition("-")[0]
    found = []
    for part, only in _parts(run, facts):
        reader = EventReader(part, thinned=True)
        events = reader.new()
        trains = bool(facts.planned_steps) and part is run
        until = max((event.time for event in events), default=0.0) if is_over else now
        for use in account(events, trains=trains, since=since, until=until, is_over=is_over):
            stage = only or facts.stage(use.stage)
            if only is None and stage.is_array:
                continue  # the array as a whole; what it holds its shards say
            held = (stage.num_gpus, stage.num_cpus, stage.num_nodes)
            found.append(Used(run.name, name, facts.kind, user, facts.project, trains, *held, use))
    return found


def _parts(run: RunDir, facts: Facts) -> Iterator[tuple[RunDir, Stage | None]]:
    """The run, and each shard with its stage."""
    yield run, None
    for stage in facts.stages:
        if stage.is_array:
            folder = run.shard(stage.name, 0).path.parent
            if folder.is_dir():
                yield from ((RunDir(path), stage) for path in folder.iterdir() if path.name.isdecimal())
