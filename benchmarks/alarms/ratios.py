"""Goodput and effective training time from PromQL, held against the ledger of each run."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks.alarms.lab import Lab
from xgen.runs import RunDir, read_events, replay

_RATIOS = {
    "effective training time": ("run:xgen_run_effective_time:ratio", ()),
    "goodput": ("run:xgen_run_goodput:ratio", ("queued",)),
}


@dataclass(frozen=True)
class Ratio:
    run: str
    what: str
    promql: float | None
    ledger: float

    @property
    def equal(self) -> bool:
        return self.promql is not None and abs(self.promql / self.ledger - 1) < 0.01


def compare(lab: Lab, runs: list[str]) -> list[Ratio]:
    """Of every run that has trained, and has ended."""
    found = []
    for name in runs:
        ledger = replay(read_events(RunDir(lab.cluster.run_root / name)))
        totals = ledger.totals(time.time())
        if ledger.phase is not None or not totals.get("train"):
            continue
        for what, (record, without) in _RATIOS.items():
            wall = sum(seconds for phase, seconds in totals.items() if phase not in without)
            value = lab.watch.value(f'{record}{{run="{name}"}}', time.time())
            found.append(Ratio(name, what, value, totals["train"] / wall))
    return found
