"""The order of samples: each window once an epoch, a function of (seed, index) alone, at the same cost anywhere."""

from __future__ import annotations

import time
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.made import MadePart
from xgen.data import PlainSamples, StoreError, TokenStore

sizes = st.integers(1, 2000)
seeds = st.integers(-(2**63), 2**63 - 1)
epochs = st.integers(0, 10**9)


def counted(num_windows: int, seq_len: int = 1, seed: int = 0, num_parts: int = 1) -> PlainSamples:
    """Over the tokens 0, 1, 2, ..., in parts: a sample shows where it was taken."""
    num_tokens = num_windows * seq_len + 1
    edges = [num_tokens * number // num_parts for number in range(num_parts + 1)]
    parts = tuple(MadePart([end - first], first) for first, end in pairwise(edges) if end > first)
    store: Any = SimpleNamespace(parts=parts, path="made", meta=SimpleNamespace(num_tokens=num_tokens, fingerprint="0"))
    return PlainSamples(store, seq_len, seed)


def sample(samples: PlainSamples, number: int) -> list[int]:
    batch = samples.batch(number, 1)
    return [*batch.tokens[0].tolist(), int(batch.labels[0, -1])]


@given(size=sizes, seed=seeds, epoch=epochs)
def test_every_epoch_holds_each_window_once(size: int, seed: int, epoch: int) -> None:
    windows = counted(size, seed=seed).windows(epoch * size, size)
    assert np.array_equal(np.sort(windows), np.arange(size))


@given(size=sizes, seed=seeds, start=st.integers(0, 10**15), count=st.integers(0, 300))
def test_one_sample_and_many_agree_across_epochs(size: int, seed: int, start: int, count: int) -> None:
    index = counted(size, seed=seed)
    assert index.windows(start, count).tolist() == [index.window(start + k) for k in range(count)]


@given(seed=seeds, order=st.lists(st.integers(0, 10**12), min_size=1, max_size=50), seq_len=st.integers(1, 300))
def test_a_sample_is_the_same_whatever_was_read_before(
    store: TokenStore, seed: int, order: list[int], seq_len: int
) -> None:
    used, index = PlainSamples(store, seq_len, seed), PlainSamples(store, seq_len, seed)
    seen = {number: sample(used, number) for number in order}
    for number in sorted(order):
        assert sample(index, number) == seen[number]


@given(size=st.integers(30, 2000), seed=seeds, epoch=epochs)
def test_epochs_and_seeds_differ(size: int, seed: int, epoch: int) -> None:
    index, other = counted(size, seed=seed), counted(size, seed=seed + 1)
    order = index.windows(epoch * size, size)
    assert not np.array_equal(order, index.windows((epoch + 1) * size, size))
    assert not np.array_equal(order, other.windows(epoch * size, size))
    assert not np.array_equal(order, np.arange(size))


@pytest.mark.parametrize("num_parts", [1, 3, 200])
def test_samples_are_windows_that_share_one_token_also_across_parts(num_parts: int) -> None:
    index = counted(num_windows=50, seq_len=16, seed=3, num_parts=num_parts)
    for number in range(120):
        start = index.window(number) * 16
        assert sample(index, number) == list(range(start, start + 17))


def test_batch_stacks_samples(store: TokenStore) -> None:
    index = PlainSamples(store, 64, seed=1)
    start = index.num_windows - 5  # across the end of an epoch
    batch = index.batch(start, 12)
    assert batch.tokens.shape == batch.labels.shape == (12, 64) and batch.tokens.dtype == np.int32
    assert np.array_equal(batch.tokens[:, 1:], batch.labels[:, :-1])
    assert batch.positions[7].tolist() == list(range(64))
    for k in range(12):
        assert sample(index, start + k) == [*batch.tokens[k].tolist(), int(batch.labels[k, -1])]


def test_neighbours_in_the_order_are_far_apart_in_the_store() -> None:
    """A uniform order: the mean distance of two places is a third of the size, and neighbours do not correlate."""
    order = counted(20_000, seed=5).windows(0, 20_000).astype(float)
    assert abs(np.abs(np.diff(order)).mean() / 20_000 - 1 / 3) < 0.01
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.03
    assert abs(np.corrcoef(order, np.arange(20_000))[0, 1]) < 0.03


def test_small_permutations_are_all_equally_likely() -> None:
    index = counted(4, seed=11)
    orders = index.windows(0, 4 * 12_000).reshape(-1, 4)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24 and counts.min() > 380 and counts.max() < 620


def test_order_of_this_version_is_kept() -> None:
    """A run that resumes after an update of xgen must see the same data: changing these numbers breaks runs."""
    index = counted(1000, seed=1)
    assert index.windows(0, 6).tolist() == [224, 107, 591, 167, 326, 191]
    assert index.windows(10**12, 3).tolist() == [538, 66, 422]


def test_a_sample_costs_the_same_anywhere(store: TokenStore) -> None:
    index = PlainSamples(store, 64, seed=1)

    def seconds(start: int) -> float:
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            for number in range(start, start + 200):
                index.batch(number, 1)
            times.append(time.perf_counter() - begin)
        return min(times)

    near, far = seconds(0), seconds(10**12)
    assert far < 20 * near and far / 200 < 2e-3


def test_wrong_calls_are_refused(store: TokenStore) -> None:
    with pytest.raises(StoreError, match=r"meta\.json: has \d+ tokens, and one sample needs 1000001; write a smaller"):
        PlainSamples(store, 1_000_000, seed=1)
    with pytest.raises(ValueError, match="seq_len 0 is not positive"):
        PlainSamples(store, 0, seed=1)
    index = PlainSamples(store, 64, seed=1)
    for call in (index.window, lambda number: index.windows(number, 2), lambda number: index.batch(number, 1)):
        with pytest.raises(IndexError, match="sample -1 is before the first"):
            call(-1)
