"""A step, or a shard of one: the items that are its own and not done yet, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xgen.data.curate.steps.balance import BalanceStep
from xgen.data.curate.steps.base import BEGINS, Context, Item, Step
from xgen.data.curate.steps.cluster import Cluster
from xgen.data.curate.steps.deal import Deal
from xgen.data.curate.steps.finish import finish, read_manifest
from xgen.data.curate.steps.folders import is_done, published, remove
from xgen.data.curate.steps.lines import Common, Lines
from xgen.data.curate.steps.lock import at_work
from xgen.data.curate.steps.match import Match
from xgen.data.curate.steps.plan import read_plan
from xgen.data.curate.steps.prepare import prepare
from xgen.data.curate.steps.select import Select
from xgen.data.curate.steps.shuffle import Shuffle, is_there
from xgen.data.curate.steps.tag import Tag
from xgen.data.curate.weights import with_weights
from xgen.spec.curate import Curate

Status = Literal["finished", "stopped"]
_STEPS: dict[str, Callable[[Context], Step]] = {
    "tag": Tag,
    "match": Match,
    "cluster": Cluster,
    "lines": Lines,
    "common": Common,
    "select": Select,
    "balance": BalanceStep,
    "deal": Deal,
    "shuffle": Shuffle,
}


@dataclass(frozen=True)
class Shard:
    """Items i, i + n, … of a step."""

    number: int = 0
    count: int = 1


@dataclass(frozen=True)
class Watch:
    """Who is told how a step gets on, and says when it has to stop: what is under way is then left undone."""

    stopped: Callable[[], bool] = lambda: False
    items: Callable[[int, int], None] = lambda done, total: None  # noqa: ARG005
    tick: Callable[[int], None] = lambda num_bytes: None  # noqa: ARG005


class _StoppedError(Exception):
    """Out of an item that is under way."""


def run_step(job: Curate, step: str, shard: Shard = Shard(), watch: Watch = Watch()) -> Status:
    """Do what is not done of a shard. Raises StoreError for what is wrong with the input, and OSError."""

    def tick(num_bytes: int) -> None:
        watch.tick(num_bytes)
        if watch.stopped():
            raise _StoppedError

    if step == "prepare":
        Path(job.work_folder).mkdir(parents=True, exist_ok=True)
    try:
        with at_work(job):
            _run(with_weights(job), step, shard, watch.items, tick)
    except _StoppedError:
        return "stopped"
    return "finished"


def _run(job: Curate, step: str, shard: Shard, items: Callable[[int, int], None], tick: Callable[[int], None]) -> None:
    if step == "prepare":
        prepare(job, tick)
        return
    work = Path(job.work_folder)
    context = Context(job, work, read_plan(job))
    if (found := read_manifest(Path(job.out))) and found.recipe == context.whole:
        return
    if step == "assemble":
        finish(context, tick)
        return
    worker = _STEPS[step](context)
    mine = list(worker.items())[shard.number :: shard.count]
    for number, item in enumerate(mine):
        items(number, len(mine))
        if _is_good(context, step, item):
            continue
        tick(0)
        if step == "tag":
            remove(work / BEGINS)  # it says that all units are there
        with published(item.folder, item.recipe) as folder:
            worker.write(item, folder, tick)
    items(len(mine), len(mine))


def _is_good(context: Context, step: str, item: Item) -> bool:
    if not is_done(item.folder, item.recipe):
        return False
    if step == "shuffle" and not is_there(context, item):
        remove(item.folder)
        return False
    return True
