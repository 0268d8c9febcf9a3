"""A sample of the campaigns that benchmarks/stops.py and benchmarks/faults.py run whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.campaigns import KINDS, faulty, stopped_often, undisturbed
from tests.train.forked import Training


@pytest.fixture(scope="module")
def expected(_warm: None, tmp_path_factory: pytest.TempPathFactory) -> Training:
    return undisturbed(tmp_path_factory.mktemp("expected"))


def test_run_that_is_stopped_at_random_moments_ends_as_if_it_had_not_been(expected: Training, tmp_path: Path) -> None:
    case = stopped_often(1, tmp_path, expected, num_stops=2)
    assert case.wrong == ""
    assert case.attempts >= 3


# Those that no test of its own provokes; the campaign has all.
_SAMPLE = ("node killed", "one rank killed", "disk full", "killed while loading", "stale file", "stale folder")


@pytest.mark.parametrize("seed", [KINDS.index(kind) for kind in _SAMPLE], ids=_SAMPLE)
def test_fault_costs_no_more_than_an_interval_and_nothing_else(expected: Training, tmp_path: Path, seed: int) -> None:
    case = faulty(seed, tmp_path, expected)
    assert case.wrong == ""
    assert case.attempts >= 2
