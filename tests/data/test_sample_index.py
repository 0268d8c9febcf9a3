"""The order of samples: each window once an epoch, a function of (seed, index) alone, at the same cost anywhere."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgen.data import SampleIndex, StoreError, TokenStore, fold

sizes = st.integers(1, 2000)
seeds = st.integers(-(2**63), 2**63 - 1)
epochs = st.integers(0, 10**9)


def counted(store: TokenStore, num_windows: int, seq_len: int = 1, seed: int = 0) -> SampleIndex:
    """An index over the tokens 0, 1, 2, ...: a sample shows where it was taken."""
    tokens = np.arange(num_windows * seq_len + 1, dtype=np.uint32)
    meta = store.meta.model_copy(update={"num_tokens": len(tokens)})
    return SampleIndex(replace(store, tokens=tokens, meta=meta), seq_len, seed)


@given(size=sizes, seed=seeds, epoch=epochs)
def test_every_epoch_holds_each_window_once(store: TokenStore, size: int, seed: int, epoch: int) -> None:
    windows = counted(store, size, seed=seed).windows(epoch * size, size)
    assert np.array_equal(np.sort(windows), np.arange(size))


@given(size=sizes, seed=seeds, start=st.integers(0, 10**15), count=st.integers(0, 300))
def test_one_sample_and_many_agree_across_epochs(
    store: TokenStore, size: int, seed: int, start: int, count: int
) -> None:
    index = counted(store, size, seed=seed)
    assert index.windows(start, count).tolist() == [index.window(start + k) for k in range(count)]


@given(seed=seeds, order=st.lists(st.integers(0, 10**12), min_size=1, max_size=50), seq_len=st.integers(1, 300))
def test_a_sample_is_the_same_whatever_was_read_before(
    store: TokenStore, seed: int, order: list[int], seq_len: int
) -> None:
    used, index = SampleIndex(store, seq_len, seed), SampleIndex(store, seq_len, seed)
    seen = {number: used.sample(number) for number in order}
    for number in sorted(order):
        assert np.array_equal(index.sample(number), seen[number])


@given(size=st.integers(30, 2000), seed=seeds, epoch=epochs)
def test_epochs_and_seeds_differ(store: TokenStore, size: int, seed: int, epoch: int) -> None:
    index, other = counted(store, size, seed=seed), counted(store, size, seed=seed + 1)
    order = index.windows(epoch * size, size)
    assert not np.array_equal(order, index.windows((epoch + 1) * size, size))
    assert not np.array_equal(order, other.windows(epoch * size, size))
    assert not np.array_equal(order, np.arange(size))


def test_samples_are_windows_that_share_one_token(store: TokenStore) -> None:
    index = counted(store, num_windows=50, seq_len=16, seed=3)
    for number in range(120):
        start = index.window(number) * 16
        sample = index.sample(number)
        assert sample.dtype == np.int32
        assert sample.tolist() == list(range(start, start + 17))


def test_batch_stacks_samples(store: TokenStore) -> None:
    index = SampleIndex(store, 64, seed=1)
    start = index.num_windows - 5  # across the end of an epoch
    batch = index.batch(start, 12)
    assert batch.shape == (12, 65) and batch.dtype == np.int32
    assert np.array_equal(batch, np.stack([index.sample(start + k) for k in range(12)]))


def test_neighbours_in_the_order_are_far_apart_in_the_store(store: TokenStore) -> None:
    """A uniform order: the mean distance of two places is a third of the size, and neighbours do not correlate."""
    order = counted(store, 20_000, seed=5).windows(0, 20_000).astype(float)
    assert abs(np.abs(np.diff(order)).mean() / 20_000 - 1 / 3) < 0.01
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.03
    assert abs(np.corrcoef(order, np.arange(20_000))[0, 1]) < 0.03


def test_small_permutations_are_all_equally_likely(store: TokenStore) -> None:
    index = counted(store, 4, seed=11)
    orders = index.windows(0, 4 * 12_000).reshape(-1, 4)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24 and counts.min() > 380 and counts.max() < 620


def test_order_of_this_version_is_kept(store: TokenStore) -> None:
    """A run that resumes after an update of xgen must see the same data: changing these numbers breaks runs."""
    index = counted(store, 1000, seed=1)
    assert index.windows(0, 6).tolist() == [224, 107, 591, 167, 326, 191]
    assert index.windows(10**12, 3).tolist() == [538, 66, 422]


def test_a_sample_costs_the_same_anywhere(store: TokenStore) -> None:
    index = SampleIndex(store, 64, seed=1)

    def seconds(start: int) -> float:
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            for number in range(start, start + 200):
                index.sample(number)
            times.append(time.perf_counter() - begin)
        return min(times)

    near, far = seconds(0), seconds(10**12)
    assert far < 20 * near and far / 200 < 2e-3


def test_wrong_calls_are_refused(store: TokenStore) -> None:
    with pytest.raises(StoreError, match=r"tokens\.bin: has \d+ tokens, and one sample needs 1000001; write a smaller"):
        SampleIndex(store, 1_000_000, seed=1)
    with pytest.raises(ValueError, match="seq_len 0 is not positive"):
        SampleIndex(store, 0, seed=1)
    index = SampleIndex(store, 64, seed=1)
    for call in (index.window, index.sample, lambda number: index.windows(number, 2)):
        with pytest.raises(IndexError, match="sample -1 is before the first"):
            call(-1)


@given(parts=st.lists(st.integers(0, 3), min_size=40, max_size=40))
def test_proof_is_the_same_however_ranks_share_the_samples(store: TokenStore, parts: list[int]) -> None:
    index = SampleIndex(store, 64, seed=1)
    alone, ranks = 0, [0, 0, 0, 0]
    for number in range(40):
        alone = fold(alone, number, index.sample(number))
    for number in reversed(range(40)):
        ranks[parts[number]] = fold(ranks[parts[number]], number, index.sample(number).astype(np.int64))
    assert sum(ranks) % 2**64 == alone


def test_proof_tells_a_repeat_a_swap_and_another_token(store: TokenStore) -> None:
    index = SampleIndex(store, 64, seed=1)
    first, second = index.sample(0), index.sample(1)
    changed = first.copy()
    changed[10] ^= 1
    cases = [
        ((0, first), (1, second)),
        ((0, first), (0, first)),
        ((0, second), (1, first)),
        ((0, changed), (1, second)),
        ((0, first),),
        (),
    ]
    totals = set()
    for case in cases:
        total = 0
        for number, tokens in case:
            total = fold(total, number, tokens)
        totals.add(total)
    assert len(totals) == len(cases)
