"""Copies lie evenly over the store, and never side by side."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.curate.test_budget import made, planned
from xgen.data.curate.balance import UniMax
from xgen.data.curate.frequency import FINEWEB2
from xgen.data.curate.quotas import Target
from xgen.data.curate.spread import apart, document_keys, places, stretch_of


@given(
    numbers=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40, unique=True),
    copies=st.lists(st.integers(0, 9), min_size=40, max_size=40),
    seed=st.integers(0, 5),
)
def test_each_copy_has_a_place_and_those_of_a_document_are_equally_far_apart(
    numbers: list[int], copies: list[int], seed: int
) -> None:
    counts = np.array(copies[: len(numbers)], dtype=np.uint16)
    document, copy, place = places(np.array(numbers, np.uint64), counts, seed)
    assert Counter(document.tolist()) == {i: int(c) for i, c in enumerate(counts) if c}
    for i in set(document.tolist()):
        mine = [int(p) for p in place[document == i]]
        assert copy[document == i].tolist() == list(range(len(mine)))
        assert {b - a for a, b in pairwise(mine)} <= {(2**64 - 1) // len(mine)}
        assert mine[0] < 2**64 // len(mine) + 1


@given(ids=st.lists(st.integers(0, 6), max_size=60))
def test_no_document_follows_itself_wherever_that_can_be(ids: list[int]) -> None:
    order = apart(np.array(ids, dtype=np.int64))
    assert sorted(order.tolist()) == list(range(len(ids)))
    arranged = [ids[i] for i in order]
    meetings = sum(a == b for a, b in pairwise(arranged))
    most = max(Counter(ids).values(), default=0)
    if most <= (len(ids) + 1) // 2:
        assert meetings == 0
    else:
        assert meetings <= 2 * most - len(ids)  # one more than must be, at most


def test_an_order_without_meetings_is_kept() -> None:
    ids = np.array([4, 1, 4, 2, 2, 5, 6, 7, 8, 9])
    assert apart(ids[[0, 1, 2, 3, 5]]).tolist() == [0, 1, 2, 3, 4]
    moved = apart(ids)
    assert moved.tolist() == [0, 1, 2, 3, 5, 4, 6, 7, 8, 9]  # the nearest gap


def test_copies_are_far_from_each_other_in_a_store() -> None:
    rng = np.random.default_rng(0)
    copies = rng.choice([1, 2, 3, 5, 8], 50_000, p=[0.6, 0.2, 0.1, 0.06, 0.04]).astype(np.uint16)
    numbers = np.arange(50_000, dtype=np.uint64)
    document, _, place = places(numbers, copies)
    rank = np.empty(len(place), np.int64)
    rank[np.argsort(place, kind="stable")] = np.arange(len(place))
    for count in (2, 3, 5, 8):
        ranks = rank[copies[document] == count].reshape(-1, count)
        gaps = np.diff(ranks, axis=1)
        assert gaps.min() > 0.95 * len(place) / count
    stored = document[np.argsort(place, kind="stable")]
    assert (stored[1:] != stored[:-1]).all()


def test_stretches_are_found_one_by_one_and_hold_alike() -> None:
    _, _, place = places(np.arange(100_000, dtype=np.uint64), np.ones(100_000, np.uint16))
    stretch = stretch_of(place, 7)
    order = np.argsort(place, kind="stable")
    assert (np.diff(stretch[order].astype(int)) >= 0).all()
    held = np.bincount(stretch, minlength=7)
    assert len(held) == 7
    assert held.min() > 0.95 * 100_000 / 7


def test_keys_are_fixed_for_ever_and_differ_by_what_they_are_for() -> None:
    keys = document_keys(np.array([0, 1, 2**64 - 1], np.uint64), "draw", 0)
    assert keys.tolist() == [1027504060645810633, 3217373720509458703, 7091655172965933091]
    assert (
        document_keys(np.arange(100, dtype=np.uint64), "spread", 0)
        != document_keys(np.arange(100, dtype=np.uint64), "draw", 0)
    ).all()


@pytest.mark.parametrize("num_stretches", [1, 7])
def test_a_store_written_by_stretches_is_the_plan(num_stretches: int) -> None:
    documents = made(2_000, FINEWEB2, num_domains=2)
    found = planned(documents, Target("m", 3_333_333, UniMax(), max_epochs=3))
    document, copy, place = places(documents.numbers, found.copies)
    written = []  # (document, tokens), as the store has them
    for number in range(num_stretches):
        mine = np.flatnonzero(stretch_of(place, num_stretches) == number)
        mine = mine[np.argsort(place[mine], kind="stable")]
        for row in mine[apart(document[mine])].tolist():
            i = int(document[row])
            is_cut = i in found.cuts and copy[row] + 1 == found.copies[i]
            written.append((i, found.cuts[i] if is_cut else int(documents.num_tokens[i])))
    assert sum(tokens for _, tokens in written) == 3_333_333
    assert all(one != other for (one, _), (other, _) in pairwise(written))
    multiple = np.bincount([i for i, _ in written], minlength=len(documents)) / documents.copies
    for domain in (0, 1):
        passes = np.floor(multiple[documents.domains == domain].min())
        mine = multiple[documents.domains == domain]
        assert ((mine == passes) | (mine == passes + 1)).sum() >= len(mine) - 1
