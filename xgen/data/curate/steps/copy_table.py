"""Copies by the size of a cluster: the table that the spec names, or one that is estimated."""

from __future__ import annotations

import numpy as np

from xgen.data.curate.frequency import FINEWEB2, ONCE, CopyTable
from xgen.data.curate.rehydrate import Removals, estimate
from xgen.data.curate.report_model import Frequency, RateBin
from xgen.data.curate.steps import results
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.ledger import read_facts


def copy_table(context: Context) -> tuple[Frequency, CopyTable]:
    """The table, and what the report says of it but for the documents of each step."""
    spec = context.job.frequency
    bins: tuple[RateBin, ...] = ()
    rate, note = None, ""
    match spec.rule:
        case "fineweb2":
            table = FINEWEB2
        case "table":
            table = CopyTable.parse(spec.table)
        case "none":
            table = ONCE
        case "rehydrate":
            found = estimate(_removals(context), spec.max_copies, spec.min_count)
            table, rate, note = found.table, found.rate, found.note
            bins = tuple(
                RateBin(
                    size=one.start, documents=one.count, removed=one.removed, rate=one.rate, low=one.low,
                    high=one.high, copies=one.copies,
                )
                for one in found.bins
            )  # fmt: skip
    return Frequency(rule=spec.rule, table=table.as_dict(), documents=(), bins=bins, rate=rate, note=note), table


def _removals(context: Context) -> Removals:
    """By the filters, and by the second model."""
    sizes, counts, removed = np.load(context.work / "cluster" / results.REMOVALS_FILE)
    later = np.zeros(len(sizes), dtype=np.int64)
    for one in context.units_of("select"):
        for size, number in read_facts(one.folder).counts.get("removed", {}).items():
            later[np.searchsorted(sizes, int(size))] += number
    return Removals(sizes, counts, removed + later)
