"""Matching against all pairs compared, and clusters against a plain search; whatever the split."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from xgen.data.curate import cluster
from xgen.data.curate.cluster import KEPT, SAME_ID, Clusters, components, reduce_edges
from xgen.data.curate.exact import exact_hash
from xgen.data.curate.match import band_records, by_bucket, exact_records, match
from xgen.data.curate.minhash import Geometry, signatures
from xgen.data.curate.texts import Texts

NUM = 30
edge_lists = st.lists(st.tuples(st.integers(0, NUM - 1), st.integers(0, NUM - 1)), max_size=40)


def as_edges(pairs: list[tuple[int, int]]) -> NDArray[np.uint64]:
    return np.array(pairs, dtype=np.uint64).reshape(-1, 2)


def searched(num_documents: int, pairs: list[tuple[int, int]]) -> list[int]:
    """Labels, found by lowering them until nothing changes."""
    labels = list(range(num_documents))
    while True:
        before = list(labels)
        for one, other in pairs:
            labels[one] = labels[other] = min(labels[one], labels[other])
        if labels == before:
            return labels


@given(edge_lists)
def test_labels_are_the_lowest_document(pairs: list[tuple[int, int]]) -> None:
    assert components(NUM, [as_edges(pairs)]).tolist() == searched(NUM, pairs)


@pytest.mark.parametrize("wide", [1, 1 << 32])  # documents whose numbers take 8 bytes
@given(edge_lists, st.integers(0, NUM), st.binary(min_size=NUM, max_size=NUM), st.integers(1, NUM))
def test_of_a_cluster_the_first_that_is_kept_is_chosen_unless_an_earlier_one_is_in_it(
    wide: int, pairs: list[tuple[int, int]], num_earlier: int, facts: bytes, at_once: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "_WIDE", wide)
        clusters = Clusters(num_earlier, NUM - num_earlier, [as_edges(pairs)])
    kept, same_id = ([byte & bit > 0 for byte in facts] for bit in (1, 2))
    clusters.marks[:] = np.array(kept[num_earlier:], dtype=np.uint8) * KEPT
    clusters.mark(np.flatnonzero(same_id).astype(np.uint64), SAME_ID)
    clusters.choose()
    labels = searched(NUM, pairs)
    members = {label: [n for n in range(num_earlier, NUM) if labels[n] == label] for label in set(labels)}
    counted = {label: [n for n in own if not same_id[n]] for label, own in members.items()}
    chosen = {
        label: next((n - num_earlier for n in own if kept[n] and label >= num_earlier), -1)
        for label, own in counted.items()
    }
    lowest: list[tuple[int, bool]] = []
    for begin in range(0, NUM - num_earlier, at_once):
        end = min(begin + at_once, NUM - num_earlier)
        own = labels[num_earlier + begin : num_earlier + end]
        expected = [chosen[n] for n in own], [len(counted[n]) for n in own], [n < num_earlier for n in own]
        assert tuple(column.tolist() for column in clusters.rows(begin, end)) == expected
        lowest += zip(*(column.tolist() for column in clusters.lowest(begin, end)), strict=True)
    assert lowest == [(len(counted[n]), chosen[n] < 0) for n in sorted(members) if n >= num_earlier and counted[n]]


@given(edge_lists, st.randoms(use_true_random=False), st.integers(0, 40))
def test_order_direction_and_split_of_edges_change_nothing(
    pairs: list[tuple[int, int]], random: Random, split: int
) -> None:
    whole = components(NUM, [as_edges(pairs)])
    other = [(b, a) if random.random() < 0.5 else (a, b) for a, b in pairs]
    random.shuffle(other)
    parts = [reduce_edges(as_edges(other[:split])), reduce_edges(as_edges(other[split:]))]
    for again in (components(NUM, parts), components(NUM, [reduce_edges(np.concatenate(parts))])):
        assert (again == whole).all()
    reduced = reduce_edges(as_edges(pairs))
    assert (reduce_edges(as_edges(other)) == reduced).all()
    assert len(reduced) == NUM - len(set(whole.tolist()))


@given(edge_lists)
def test_edges_of_a_few_among_many_documents_reduce_alike(pairs: list[tuple[int, int]]) -> None:
    far = as_edges(pairs) * np.uint64(1 << 40)
    assert (reduce_edges(far) == reduce_edges(as_edges(pairs)) * np.uint64(1 << 40)).all()


def test_no_documents_and_no_edges() -> None:
    assert components(0, []).tolist() == []
    assert components(2, []).tolist() == [0, 1]
    assert reduce_edges(as_edges([])).shape == (0, 2)


# Sketches of eight places, of two bits each.
records = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, (1 << 16) - 1)), max_size=30)
near = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9), st.sampled_from([0, 1, 2, 3, 4, 7, 1 << 15])))


def places(one: int, other: int) -> int:
    return sum((one ^ other) >> 2 * place & 3 != 0 for place in range(8))


@given(records | near, st.integers(0, 8))
def test_a_document_is_linked_to_the_first_that_is_like_it(rows: list[tuple[int, int, int]], most: int) -> None:
    rows = sorted(rows, key=lambda row: row[1])
    found = match(
        np.array([(key << 60, doc, 0, bits, 0) for key, doc, bits in rows], dtype=np.uint64).reshape(-1, 5), most
    )
    leaders: list[tuple[int, int, int]] = []
    expected = []
    for key, doc, bits in rows:
        like = next((x for x in leaders if x[0] == key and places(x[2], bits) <= most), None)
        if like is None:
            leaders.append((key, doc, bits))
        elif like[1] != doc:
            expected.append((like[1], doc))
    assert sorted(map(tuple, found.edges.tolist())) == sorted(expected)
    assert found.num_unplaced == 0


def _planted() -> tuple[Texts, NDArray[np.uint64]]:
    rng = np.random.default_rng(5)
    strings = [" ".join(map(str, rng.integers(0, 10_000, 300))) for _ in range(200)]
    strings += [string.upper() + "!" for string in strings[:50]]
    strings += [string + " and one more end" for string in strings[50:100]]
    return Texts.of(strings), np.arange(300, dtype=np.uint64) + np.uint64(1000)


def test_planted_duplicates_are_found_and_nothing_else() -> None:
    texts, documents = _planted()
    geometry = Geometry()
    found = match(band_records(signatures(texts, geometry), documents, geometry), geometry.max_differing)
    expected = [[1000 + number % 200, 1000 + number] for number in range(200, 300)]
    assert reduce_edges(found.edges).tolist() == expected
    exact = match(exact_records(exact_hash(texts), documents), 0)
    assert reduce_edges(exact.edges).tolist() == expected[:50]


def test_buckets_together_find_what_one_finds() -> None:
    """Made in two parts, as by two workers."""
    texts, documents = _planted()
    geometry = Geometry()
    rows = band_records(signatures(texts, geometry), documents, geometry)
    middle = 150 * geometry.bands
    parts = [by_bucket(rows[:middle], 7), by_bucket(rows[middle:], 7)]
    edges, last_key = [], 0
    for bucket in range(7):
        inside = np.concatenate([part[offsets[bucket] : offsets[bucket + 1]] for part, offsets in parts])
        assert len(inside) > 0
        assert last_key <= inside[:, 0].min()
        last_key = inside[:, 0].max()
        edges += match(inside, 20).edges.tolist()
    assert sorted(edges) == sorted(match(rows, 20).edges.tolist())


def test_what_shares_a_key_by_chance_is_told_apart() -> None:
    rng = np.random.default_rng(2)
    rows = rng.integers(0, 1 << 63, (3000, 5), dtype=np.uint64)
    rows[:, 0] = 1
    rows[:, 1] = np.arange(3000)
    found = match(rows, 20)
    assert len(found.edges) == 0
    assert found.num_unplaced == 3000 - 1024


def test_records_out_of_order_are_refused() -> None:
    rows = np.array([[1, 5, 0, 0, 0], [1, 4, 0, 0, 0]], dtype=np.uint64)
    with pytest.raises(AssertionError):
        match(rows, 0)


def test_edges_beyond_the_documents_are_refused() -> None:
    with pytest.raises(AssertionError):
        components(3, [as_edges([(0, 3)])])
