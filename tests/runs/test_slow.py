"""Which rank is slow again and again."""

from __future__ import annotations

from xgen.runs import Event
from xgen.runs.slow import often_slow


def report(rank: int, ratio: float, node: str) -> Event:
    return Event(
        time=1.0, run="job-aaaaaa", attempt=1, job_id="1", event="straggler", writer="rank0", rank=rank, ratio=ratio,
        nodes=node,
    )  # fmt: skip


def test_a_node_that_is_slow_in_most_reports_is_named_whatever_rank_it_has() -> None:
    found = often_slow([report(3, 1.3, "g17"), report(5, 1.6, "g17"), report(0, 1.4, "g01"), report(5, 1.25, "g17")])
    assert found is not None
    assert str(found) == (
        "rank 5 on g17 was the slowest in 3 of 4 reports of slow ranks, at worst 1.60 times as long as the median rank"
    )


def test_chance_and_waiting_for_data_are_no_slow_rank() -> None:
    assert often_slow([]) is None
    assert often_slow([report(rank % 4, 1.3, f"g{rank % 4}") for rank in range(16)]) is None
    assert often_slow([report(3, 1.3, "g17"), report(3, 1.3, "g17")]) is None
    assert often_slow([report(3, 1.05, "g17")] * 9) is None  # it was told of one that waited for data
