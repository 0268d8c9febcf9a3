"""The all-reduce before the first step: what it says, and how it finds the node that is slow."""

from __future__ import annotations

import pytest
import yaml

from tests.train.forked import SPEC, Training
from xgen.runs import read_events
from xgen.train.fabric import Slow, _rounds, slowest


@pytest.mark.parametrize("units", range(2, 12))
def test_every_link_of_the_ring_is_measured_once_and_no_node_sends_twice_at_a_time(units: int) -> None:
    rounds = _rounds(units)
    assert sorted(link for some in rounds for link in some) == list(range(units if units > 2 else 1))
    for some in rounds:
        ends = [unit for link in some for unit in (link, (link + 1) % units)]
        assert len(ends) == len(set(ends))


@pytest.mark.parametrize(
    ("bandwidths", "nodes"),
    [
        ([10, 10, 2, 2, 10], ("g3",)),
        ([2, 10, 10, 10, 3], ("g0",)),
        ([10, 10, 2, 10, 10], ("g2", "g3")),
        ([10, 10, 10, 10, 9], ("g4", "g0")),
    ],
    ids=["node", "first-node", "link", "nothing-in-particular"],
)
def test_a_node_is_named_where_both_its_links_are_slow_and_a_pair_where_one_is(
    bandwidths: list[float], nodes: tuple[str, ...]
) -> None:
    assert slowest(bandwidths, [f"g{number}" for number in range(5)]) == Slow(nodes, min(bandwidths))


def test_an_all_reduce_below_its_floor_is_an_event_and_the_training_goes_on(training: Training) -> None:
    training.run.spec_file.write_text(yaml.safe_dump(SPEC | {"health": {"bandwidth": "1000TB"}}))
    assert [outcome.status for outcome in training.go()] == ["finished", "finished"]
    [event] = [event for event in read_events(training.run) if event.event == "unhealthy"]
    assert event.reason is not None and "the floor is 1000TB/s; the slowest link is " in event.reason
    assert event.nodes is not None and event.nodes.endswith(" rank 1")
