"""What became of one document: what every filter measured of it beside its threshold, what dropped it, its copies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute
from pydantic import TypeAdapter, ValidationError

from xgen.data.curate.steps import results
from xgen.data.curate.steps.base import Context, Item
from xgen.data.curate.steps.chains import ChainRules
from xgen.data.curate.steps.deal import COPIES_FILE, deal_items
from xgen.data.curate.steps.fates import STATES
from xgen.data.curate.steps.folders import is_done
from xgen.data.curate.steps.ledger import cut
from xgen.data.curate.steps.plan import PLAN_FILE, CuratePlan
from xgen.data.curate.steps.tables import batches_of, rows_of
from xgen.data.curate.steps.tag import DOCS_FILE, DROPPED_FILE, RULES, TRACE_FILE
from xgen.data.curate.steps.texts import first_with_id, origins
from xgen.data.errors import StoreError
from xgen.data.readers import place_of
from xgen.spec.curate import Curate


@dataclass(frozen=True)
class Check:
    """A rule that a document was held against, with what it measured; from `least` to `most` a document stays."""

    rule: str
    value: float
    least: float | None
    most: float | None
    dropped: bool


@dataclass(frozen=True)
class Drop:
    """The rule that dropped a document. `other` is the document that stays, or the item of the evaluation set."""

    rule: str
    value: float | None = None
    threshold: float | None = None
    other: int | None = None
    other_id: str = ""
    other_place: str = ""


@dataclass(frozen=True)
class Kept:
    """A document that is in the corpus: bytes and tokens as the steps left it, and its copies in each mixture."""

    bytes: int
    tokens: int
    score: float | None  # log-odds of being good; None where no model was asked
    copies: dict[str, int]


@dataclass(frozen=True)
class History:
    """Neither `dropped` nor `kept` is there where a step that has not run yet may drop the document."""

    number: int
    id: str
    place: str
    domain: str
    checks: tuple[Check, ...]
    cluster: int | None  # documents like it, itself included; None where the step cluster has not run
    dropped: Drop | None
    kept: Kept | None
    excerpt: str


def open_work(work: Path) -> Context:
    """Raises StoreError where there is no work folder of a curation, or one of another version."""
    try:
        job = Curate.model_validate_json((work / results.SPEC_FILE).read_bytes())
        return Context(job, work, CuratePlan.model_validate_json((work / PLAN_FILE).read_bytes()))
    except FileNotFoundError as error:
        what = "is gone" if not work.is_dir() else f"has no {Path(error.filename).name}"
        fix = "single documents are known while a curation's work folder is kept: name it by --work, or curate again"
        raise StoreError(work, what, fix) from None
    except ValidationError:
        raise StoreError(work, "is of another version of xgen", "use that one, or curate again") from None


def with_id(context: Context, name: str) -> list[int]:
    """The numbers of the records that have this id, of all inputs."""
    found: list[int] = []
    begins = context.begins
    for unit, item in enumerate(context.units_of("tag")):
        for batch in batches_of(item.folder / TRACE_FILE, ("row", "id")):
            same = pyarrow.compute.equal(batch.column("id"), name).to_numpy(zero_copy_only=False)
            found += (batch.column("row").to_numpy()[same] + begins[unit]).tolist()
    return found


def history(context: Context, number: int) -> History:
    """Raises StoreError for a number that no document has."""
    begins = context.begins
    if not 0 <= number < begins[-1]:
        raise StoreError(context.work, f"has no document {number:,}", f"write a number from 0 to {begins[-1] - 1:,}")
    unit = int(np.searchsorted(begins, number, side="right")) - 1
    row, tagged = number - int(begins[unit]), context.folder("tag", unit)
    trace, rules = _trace(tagged / TRACE_FILE, row)
    dropped = _one(tagged / DROPPED_FILE, "row", row, ("reason", "value", "bound", "excerpt"))
    doc = _one(tagged / DOCS_FILE, "row", row, ("score", "text"))
    cluster, drop, kept = _clustered(context, number), None, None
    if dropped:
        drop = Drop(dropped["reason"], _finite(dropped["value"]), _finite(dropped["bound"]))
    elif cluster is not None:
        drop, selected = _as_duplicate(context, number), context.units_of("select")[unit]
        if drop is None and _there(selected):
            drop, kept = _selected(context, unit, number)
    return History(
        number=number,
        id=trace["id"],
        place=place_of(trace["file"], trace["line"]),
        domain=trace["domain"],
        checks=tuple(_checks(trace, rules)),
        cluster=cluster,
        dropped=drop,
        kept=kept,
        excerpt=dropped["excerpt"] if dropped else cut(doc["text"]) if doc else "",
    )


def _trace(file: Path, row: int) -> tuple[dict[str, Any], tuple[ChainRules, ...]]:
    with pyarrow.memory_map(str(file)) as mapped:
        schema = pyarrow.ipc.open_file(mapped).schema
    found = next(rows_of(file, "row", [row], schema.names))
    return found, TypeAdapter(tuple[ChainRules, ...]).validate_json(schema.metadata[RULES.encode()])


def _checks(trace: dict[str, Any], chains: tuple[ChainRules, ...]) -> Iterator[Check]:
    """Up to the rule that dropped the document."""
    own = next(one for one in chains if one.domains is None or trace["domain"] in one.domains)
    for rule in own.rules:
        dropped = rule.name == trace["dropped_by"]
        if (value := trace[rule.measure]) is not None and not math.isnan(value):
            yield Check(rule.name, value, rule.least, rule.most, dropped)
        if dropped:
            return


def _clustered(context: Context, number: int) -> int | None:
    item = context.single("cluster")
    return int(np.load(item.folder / results.SIZE_FILE, mmap_mode="r")[number]) if _there(item) else None


def _as_duplicate(context: Context, number: int) -> Drop | None:
    folder = context.single("cluster").folder
    state = int(np.load(folder / results.STATE_FILE, mmap_mode="r")[number])
    if state not in STATES:
        return None
    if state == results.EARLIER:
        return Drop(STATES[state])
    label = int(np.load(folder / results.LABEL_FILE, mmap_mode="r")[number])
    other = first_with_id(context, [number])[number] if state == results.SAME_ID else label
    origin = origins(context, [other])[other]
    return Drop(STATES[state], other=other, other_id=origin.id, other_place=origin.place)


def _selected(context: Context, unit: int, number: int) -> tuple[Drop | None, Kept | None]:
    folder = context.folder("select", unit)
    if found := _one(folder / DROPPED_FILE, "number", number, ("reason", "value", "bound", "other")):
        return Drop(found["reason"], _finite(found["value"]), _finite(found["bound"]), found["other"]), None
    found = _one(folder / results.TABLE_FILE, "number", number, ("bytes", "num_tokens", "score"))
    assert found
    return None, Kept(found["bytes"], found["num_tokens"], _finite(found["score"]), _copies(context, unit, number))


def _copies(context: Context, unit: int, number: int) -> dict[str, int]:
    """In each mixture that is dealt."""
    items = {name: every[unit] for name, every in deal_items(context).items() if _there(every[unit])}
    return {
        name: int(np.count_nonzero(np.load(item.folder / COPIES_FILE, mmap_mode="r")["number"] == number))
        for name, item in items.items()
    }


def _there(item: Item) -> bool:
    return is_done(item.folder, item.recipe)


def _one(file: Path, key: str, value: int, columns: tuple[str, ...]) -> dict[str, Any] | None:
    return next(rows_of(file, key, [value], columns), None)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
