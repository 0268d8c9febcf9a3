"""Packed samples: a function of (seed, number) alone, exact in the mixture, no token lost, none padded."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.made import made_mixture, web_lengths
from xgen.data import Batch, PackedSamples, StoreError, TokenStore, batch_digest, make_mixture
from xgen.data.samples import IGNORE
from xgen.spec import Share


@pytest.fixture(scope="module")
def samples() -> PackedSamples:
    """Three domains of 40,000, 20,000 and 300 documents; the last has books."""
    mixture = made_mixture(
        ([web_lengths(20_000, 1), web_lengths(20_000, 2)], 0.7),
        ([web_lengths(20_000, 3)], 0.2),
        ([[40_000] * 150, [90_000] * 150], 0.1),
    )
    return PackedSamples(mixture, 8192, seed=1)


def domain_of(tokens: np.ndarray, samples: PackedSamples) -> np.ndarray:
    """Number of the component that each token comes from: all tokens of `made_mixture` differ."""
    edges = np.cumsum([component.num_tokens for component in samples.mixture.components])
    return np.searchsorted(edges, tokens, side="right")


def test_a_window_holds_the_mixture_to_the_token_and_is_full(samples: PackedSamples) -> None:
    size = samples.window_samples
    for window in (0, 1, 10**6):
        batch = samples.batch(window * size, size)
        tokens = size * 8192
        quotas = np.subtract(
            samples.mixture.quotas((window + 1) * tokens), samples.mixture.quotas(window * tokens)
        ).tolist()
        assert np.bincount(domain_of(batch.tokens.ravel(), samples)).tolist() == quotas


@pytest.mark.parametrize("number", [0, 1, 77, 4096, 5000, 10**7 + 3])
def test_tokens_taken_are_counted_as_they_came(samples: PackedSamples, number: int) -> None:
    window = number // samples.window_samples * samples.window_samples
    expected = np.array(samples.mixture.quotas(window * 8192))
    if number > window:
        tokens = samples.batch(window, number - window).tokens.ravel()
        expected += np.bincount(domain_of(tokens, samples), minlength=3)
    taken = samples.taken(number)
    assert list(taken.values()) == expected.tolist()
    assert list(taken) == [component.name for component in samples.mixture.components]
    assert sum(taken.values()) == number * 8192


def test_tokens_taken_go_on_from_those_of_the_stages_before() -> None:
    first = made_mixture(([web_lengths(3000, 1)], 1))
    name, origin = first.components[0].name, first.components[0].origin
    assert PackedSamples(first.after({(name, origin): 5000}), 512, seed=3).taken(10) == {name: 5000 + 10 * 512}


def test_an_epoch_of_a_component_holds_each_of_its_tokens_once() -> None:
    mixture = made_mixture(([web_lengths(3000, 1), web_lengths(3000, 2)], 1))
    total = mixture.components[0].num_tokens
    samples = PackedSamples(mixture, 512, seed=3)
    windows = -(-total // (512 * samples.window_samples))
    seen = samples.batch(0, windows * samples.window_samples).tokens.ravel()
    counts = np.bincount(seen, minlength=total)
    assert len(seen) > total and set(counts.tolist()) <= {1, 2} and counts.sum() == len(seen)


def test_labels_are_the_next_token_and_nothing_after_the_end_of_a_document(samples: PackedSamples) -> None:
    batch = samples.batch(5, 64)
    ends = batch.labels == IGNORE
    assert (batch.labels[~ends] == batch.tokens[~ends] + 1).all()
    offsets = np.concatenate(
        [part.offsets[1:].astype(int) + part.first for c in samples.mixture.components for part in c.parts]  # type: ignore[attr-defined]
    )
    assert np.isin(batch.tokens[ends] + 1, offsets).all()
    assert not np.isin(batch.tokens[~ends] + 1, offsets).any()


def test_positions_begin_anew_where_a_document_begins(samples: PackedSamples) -> None:
    batch = samples.batch(0, 64)
    starts = batch.positions == 0
    assert starts[:, 0].all()
    follows = batch.tokens[:, 1:] == batch.tokens[:, :-1] + 1
    same = batch.positions[:, 1:] == batch.positions[:, :-1] + 1
    assert (starts[:, 1:] == ~same).all()
    assert (follows | ~same).all()  # within a document tokens follow on each other


def test_documents_that_fit_are_cut_seldom_and_nothing_is_padded(samples: PackedSamples) -> None:
    window = samples.window(0)
    assert window.num_cut / len(window.pieces) < 0.02
    batch = samples.batch(0, samples.window_samples)
    assert batch.tokens.size == samples.window_samples * 8192  # every place holds a token of a document
    distinct = Counter(Counter(batch.tokens.ravel().tolist()).values())
    assert set(distinct) == {1}  # less than an epoch of each: none twice


@settings(max_examples=25)
@given(data=st.data(), seed=st.integers(0, 2**63))
def test_a_sample_is_the_same_whoever_asks_and_in_whatever_order(data: st.DataObject, seed: int) -> None:
    mixture = made_mixture(([web_lengths(400, 1)], 0.8), ([web_lengths(100, 2)], 0.2))
    start = data.draw(st.integers(0, 10**12))
    count = data.draw(st.integers(1, 40))
    together = PackedSamples(mixture, 256, seed).batch(start, count)
    alone = PackedSamples(mixture, 256, seed)
    for number in data.draw(st.permutations(range(count))):
        one = alone.batch(start + number, 1)
        for name in ("tokens", "labels", "positions"):
            assert np.array_equal(getattr(one, name)[0], getattr(together, name)[number])


def test_sample_of_a_far_future_costs_one_window(samples: PackedSamples) -> None:
    begin = time.perf_counter()
    PackedSamples(samples.mixture, 8192, seed=7).batch(10**12, 1)
    assert time.perf_counter() - begin < 2


def test_order_of_this_version_is_kept() -> None:
    """A run that resumes after an update of xgen must see the same data: changing these numbers breaks runs."""
    samples = PackedSamples(made_mixture(([[7, 3, 30] * 40], 0.7), ([[11] * 90], 0.3)), 32, seed=1)
    assert samples.fingerprint == "0c9517bfb77a2719"
    assert batch_digest(0, samples.batch(0, 8)) == 10701309381540650414
    assert batch_digest(10**12, samples.batch(10**12, 8)) == 10787208438354829300


def test_fingerprint_tells_what_the_order_follows_from() -> None:
    def name(weight: float = 0.5, seq_len: int = 32, seed: int = 1) -> str:
        return PackedSamples(made_mixture(([[50] * 50], weight), ([[50] * 50], 0.5)), seq_len, seed).fingerprint

    assert len({name(), name(weight=0.25), name(seq_len=16), name(seed=2)}) == 4
    assert name() == name()


def test_component_too_small_to_count_is_refused() -> None:
    mixture = made_mixture(([[100] * 100], 1), ([[10]], 1e-9))
    with pytest.raises(StoreError, match=r"d1: a window of 8,192 tokens would hold none of it; write a larger weight"):
        PackedSamples(mixture, 32, seed=1)


def test_sample_before_the_first_is_refused(samples: PackedSamples) -> None:
    with pytest.raises(IndexError, match="sample -1 is before the first"):
        samples.batch(-1, 1)


def test_proof_is_the_same_however_ranks_share_the_samples(samples: PackedSamples) -> None:
    alone = batch_digest(100, samples.batch(100, 40))
    ranks = sum(batch_digest(100 + start, samples.batch(100 + start, 10)) for start in (30, 10, 0, 20))
    assert ranks % 2**64 == alone


def test_proof_tells_a_repeat_a_swap_another_token_and_another_mask(samples: PackedSamples) -> None:
    batch = samples.batch(0, 2)

    def digest(tokens: np.ndarray = batch.tokens, positions: np.ndarray = batch.positions, start: int = 0) -> int:
        return batch_digest(start, Batch(tokens, batch.labels, positions))

    changed, moved = batch.tokens.copy(), batch.positions.copy()
    changed[1, 10] ^= 1
    moved[1, 10] = 0
    totals = {
        digest(),
        digest(tokens=batch.tokens[::-1], positions=batch.positions[::-1]),
        digest(tokens=batch.tokens[[0, 0]], positions=batch.positions[[0, 0]]),
        digest(tokens=changed),
        digest(positions=moved),
        digest(start=1),
        batch_digest(0, samples.batch(0, 1)),
    }
    assert len(totals) == 7


def test_mixture_of_a_real_store_gives_real_text(store: TokenStore) -> None:
    shares = {domain.name: Share(weight=1) for domain in store.meta.domains}
    samples = PackedSamples(make_mixture({"main": store}, shares), 128, seed=1)
    batch = samples.batch(0, samples.window_samples)
    ends = batch.labels == IGNORE
    assert (batch.tokens[ends] == store.meta.end_of_text).all()
    assert ends.sum() > 0
    text = store.tokenizer().decode(batch.tokens[0][batch.positions[0] < 60])
    assert "\ufffd" not in text[3:-3]
