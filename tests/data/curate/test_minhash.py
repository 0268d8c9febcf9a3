"""Signatures against their definition, in exact arithmetic, and against the similarity they estimate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xgen.data.curate.minhash import Geometry, band_keys, signatures, sketches
from xgen.data.curate.texts import Texts
from xgen.data.curate.words import hash_words

SMALL = Geometry(ngram=3, bands=4, rows=3, seed=5)
PRIME, MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


def mixed(value: int) -> int:
    for prime in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ value >> 33) * prime & MASK
    return value ^ value >> 33


def defined(string: str, geometry: Geometry) -> list[int]:
    """The signature by its definition."""
    words = hash_words(Texts.of([string]), geometry.seed).hashes.tolist()
    size = min(geometry.ngram, len(words))
    grams = set()
    for first in range(len(words) - size + 1):
        state = size
        for word in words[first : first + size]:
            state = (state + word) * PRIME & MASK
        grams.add(mixed(state) >> 32)
    a, b = (values.tolist() for values in geometry.permutations())
    return [min((a[j] * x + b[j]) % (1 << 32) for x in grams) for j in range(geometry.num_hashes)]


@settings(max_examples=30)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12).map(" ".join)))
def test_signatures_are_what_they_are_defined_to_be(strings: list[str]) -> None:
    assert signatures(Texts.of(strings), SMALL).tolist() == [defined(string, SMALL) for string in strings]


@pytest.mark.parametrize("num_words", [1023, 1024, 1026, 1027, 1028, 2050, 5000])
def test_blocks_leave_no_n_gram_out(num_words: int) -> None:
    string = " ".join(str(number * number) for number in range(num_words))
    assert signatures(Texts.of([string]), SMALL).tolist() == [defined(string, SMALL)]


def test_a_signature_does_not_depend_on_the_batch() -> None:
    strings = ["", "one", "one two three four", "... !", "five " * 3000]
    together = signatures(Texts.of(strings), Geometry())
    alone = [signatures(Texts.of([string]), Geometry())[0] for string in strings]
    assert together.tolist() == [row.tolist() for row in alone]


def test_without_words_only_the_same_bytes_match() -> None:
    signed = signatures(Texts.of(["", "!!", "!!", "?!"]), Geometry())
    keys = band_keys(signed, Geometry())
    assert keys[1].tolist() == keys[2].tolist()
    assert not (keys[0] == keys[1]).any()
    assert not (keys[1] == keys[3]).any()


@pytest.mark.parametrize("similarity", [0.3, 0.6, 0.8, 0.95])
def test_agreement_estimates_similarity_and_bands_meet_as_computed(similarity: float) -> None:
    """Of 1,500 pairs of sets; the bounds are four standard deviations."""
    geometry, num_pairs, size = Geometry(ngram=1), 1500, 200
    shared = round(2 * size * similarity / (1 + similarity))
    exact = shared / (2 * size - shared)
    rng = np.random.default_rng(3)
    ones, others = [], []
    for _ in range(num_pairs):
        words = rng.integers(0, 1 << 60, 2 * size).tolist()
        ones.append(" ".join(map(str, words[:size])))
        others.append(" ".join(map(str, words[size - shared : 2 * size - shared])))
    one, other = signatures(Texts.of(ones), geometry), signatures(Texts.of(others), geometry)
    agreeing = (one == other).mean(axis=1)
    error = np.sqrt(exact * (1 - exact) / geometry.num_hashes)
    assert abs(agreeing.mean() - exact) < 4 * error / np.sqrt(num_pairs)
    assert agreeing.std() < 1.1 * error  # hashes are as good as independent
    meeting = (band_keys(one, geometry) == band_keys(other, geometry)).any(axis=1).mean()
    expected = geometry.probability(exact)
    assert abs(meeting - expected) < 4 * np.sqrt(expected * (1 - expected) / num_pairs) + 1e-3
    bits = (sketches(one) ^ sketches(other)).view(np.uint8)[:, :, None] >> np.array([0, 2, 4, 6], dtype=np.uint8)
    differing = (bits & 3 != 0).sum(axis=(1, 2)) / 96
    assert abs(1 - differing.mean() * 4 / 3 - exact) < 0.01


def test_keys_differ_between_bands_and_fill_their_range() -> None:
    geometry = Geometry()
    same = np.full((1, geometry.num_hashes), 7, dtype=np.uint32)
    assert len(set(band_keys(same, geometry)[0].tolist())) == geometry.bands
    signed = np.arange(20_000 * geometry.num_hashes, dtype=np.uint32).reshape(20_000, -1)
    counts = np.bincount((band_keys(signed, geometry) >> np.uint64(60)).ravel().astype(np.int64), minlength=16)
    assert abs(counts * 16 / counts.sum() - 1).max() < 0.05


def test_geometry_says_what_is_found() -> None:
    assert Geometry().probability(0.8) > 0.99
    assert Geometry(bands=14, rows=8).probability(0.8) == pytest.approx(0.924, abs=1e-3)
