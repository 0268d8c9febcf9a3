"""Cluster sizes become copies by a table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgen.data import StoreError
from xgen.data.curate.frequency import FINEWEB2, ONCE, CopyTable, copies_of

tables = st.dictionaries(st.integers(2, 5000), st.integers(0, 20), max_size=8).flatmap(
    lambda rest: st.integers(0, 20).map(lambda first: {1: first, **rest})
)


def test_fineweb2s_table_at_every_edge() -> None:
    sizes = [1, 2, 3, 4, 5, 99, 100, 999, 1000, 2_000_000_000]
    assert FINEWEB2(np.array(sizes)).tolist() == [1, 2, 3, 3, 5, 5, 8, 8, 1, 1]


@given(table=tables, sizes=st.lists(st.integers(1, 6000), min_size=1, max_size=50))
def test_each_size_gets_the_copies_of_the_last_step_at_or_below_it(table: dict[int, int], sizes: list[int]) -> None:
    parsed = CopyTable.parse(table)
    assert parsed(np.array(sizes)).tolist() == [table[max(start for start in table if start <= size)] for size in sizes]
    assert parsed.as_dict() == table


@given(table=tables)
def test_runs_of_equal_copies_are_one_step_that_says_the_same(table: dict[int, int]) -> None:
    starts = sorted(table)
    short = CopyTable.of_runs(starts, [table[start] for start in starts])
    assert all(one != other for one, other in zip(short.copies, short.copies[1:], strict=False))
    every = np.arange(1, 6000)
    assert (short(every) == CopyTable.parse(table)(every)).all()


def test_sources_have_tables_of_their_own() -> None:
    sizes, sources = np.array([2, 2, 7, 7]), np.array([0, 1, 2, 1])
    assert copies_of(sizes, sources, [FINEWEB2, ONCE, FINEWEB2]).tolist() == [2, 1, 5, 1]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({2: 3}, "does not say what becomes of single documents"),
        ({1: 1, 0: 2}, "0 is no size of a cluster"),
        ({1: 1, 5: -1}, "-1 copies for size 5; write 0 to 1000"),
        ({1: 1, 5: 5000}, "5000 copies for size 5"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(table: dict[int, int], said: str) -> None:
    with pytest.raises(StoreError, match=f"frequency.copies: {said}"):
        CopyTable.parse(table, "frequency.copies")
