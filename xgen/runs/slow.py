"""A rank that is the slowest again and again: the fault of its node, as a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xgen.runs.events import Event

_TIMES = 3  # it was the slowest, at least
_SHARE = 0.5  # of the reports
NOTABLE = 1.2  # times as long as the median rank


@dataclass(frozen=True)
class Slow:
    """The rank and its node, and how often."""

    rank: int  # of the last report
    node: str
    times: int
    reports: int
    worst: float  # times as long as the median rank

    def __str__(self) -> str:
        return (
            f"rank {self.rank} on {self.node} was the slowest in {self.times} of {self.reports} reports of slow ranks, "
            f"at worst {self.worst:.2f} times as long as the median rank"
        )


def often_slow(events: Sequence[Event]) -> Slow | None:
    """Which one, in all attempts: by its node, for the next attempt may give that other ranks. None for chance."""
    by_node: dict[str, list[tuple[int, float]]] = {}
    for event in events:
        if event.event != "straggler" or event.rank is None or event.ratio is None:
            continue
        if event.ratio > NOTABLE:
            by_node.setdefault(event.nodes or "", []).append((event.rank, event.ratio))
    if not by_node:
        return None
    node, mine = max(by_node.items(), key=lambda item: len(item[1]))
    num_reports = sum(map(len, by_node.values()))
    if len(mine) < _TIMES or len(mine) <= _SHARE * num_reports:
        return None
    return Slow(mine[-1][0], node, len(mine), num_reports, max(ratio for _, ratio in mine))
