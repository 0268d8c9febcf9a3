"""A plan meets its budget to the token, and holds the table of copies exactly."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.made import web_lengths
from xgen.data import StoreError
from xgen.data.curate.balance import Fixed, Temperature, UniMax, allot
from xgen.data.curate.budget import Documents, Plan, Target, plan
from xgen.data.curate.frequency import FINEWEB2, ONCE
from xgen.data.curate.tally import copies_by_size, tally
from xgen.data.mixture import Component, Mixture


def made(count: int, num_domains: int = 3, num_sources: int = 4, seed: int = 0) -> Documents:
    rng = np.random.default_rng(seed)
    return Documents(
        numbers=rng.permutation(count).astype(np.uint64) + np.uint64(7 << 32),
        num_tokens=np.array(web_lengths(count, seed), dtype=np.uint32).clip(1, 20_000),
        domains=rng.choice(num_domains, count, p=np.arange(num_domains, 0, -1) / sum(range(num_domains + 1))),
        sources=rng.integers(0, num_sources, count),
        bands=rng.integers(0, 10, count),
        sizes=np.minimum(rng.zipf(1.8, count), 5000),
        domain_names=tuple(f"d{i}" for i in range(num_domains)),
        source_names=tuple(f"s{i}" for i in range(num_sources)),
    )


def tokens_in(documents: Documents, planned: Plan) -> list[int]:
    """Tokens of each domain as a writer would write them: copy by copy."""
    totals = [0] * len(documents.domain_names)
    for i in range(len(documents)):
        length, copies = int(documents.num_tokens[i]), int(planned.copies[i])
        for copy in range(copies):
            cut = planned.cuts.get(i) if copy == copies - 1 else None
            totals[int(documents.domains[i])] += length if cut is None else cut
    return totals


@st.composite
def corpora(draw: st.DrawFn) -> tuple[Documents, np.ndarray[Any, Any], Target]:
    count, num_domains = draw(st.integers(1, 60)), draw(st.integers(1, 4))
    column = lambda low, high: np.array(draw(st.lists(st.integers(low, high), min_size=count, max_size=count)))  # noqa: E731
    documents = Documents(
        np.array(draw(st.lists(st.integers(0, 2**64 - 1), min_size=count, max_size=count, unique=True)), np.uint64),
        column(1, 50),
        column(0, num_domains - 1),
        np.zeros(count, np.int64),
        column(0, 3),
        column(1, 8),
        [f"d{i}" for i in range(num_domains)],
        ["s"],
    )
    weights = {name: draw(st.floats(0.01, 10)) for name in documents.domain_names}
    target = Target(
        "m",
        draw(st.integers(1, 5000)),
        draw(st.sampled_from([Fixed(weights), Temperature(2.0), UniMax()])),
        draw(st.sampled_from([0.5, 1.0, 1.7, 4.0, 1000.0])),
        min_band=draw(st.integers(0, 1)),
    )
    return documents, column(0, 3).astype(np.uint16), target


@given(corpora())
def test_budget_caps_and_table_hold_whatever_the_corpus(
    corpus: tuple[Documents, np.ndarray[Any, Any], Target],
) -> None:
    documents, table, target = corpus
    try:
        planned = plan(documents, table, target, seed=3)
    except StoreError:
        usable = (documents.bands >= target.min_band) & (table > 0)
        assert (documents.num_tokens * table * usable).sum() * target.max_epochs < 50 * len(documents.domain_names)
        return
    assert tokens_in(documents, planned) == [quota.tokens for quota in planned.quotas]
    for quota in planned.quotas:
        assert quota.tokens <= quota.cap == int(Fraction(str(target.max_epochs)) * quota.supply)
    if planned.num_tokens == target.num_tokens:
        assert not any("are missing" in line for line in planned.unmet)
    else:
        assert planned.num_tokens < target.num_tokens
        assert all(quota.tokens == quota.cap for quota in planned.quotas)
        assert f"{target.num_tokens - planned.num_tokens:,} of {target.num_tokens:,} tokens are missing" in str(
            planned.unmet
        )
    for domain, quota in enumerate(planned.quotas):
        usable = (documents.domains == domain) & (documents.bands >= target.min_band) & (table > 0)
        assert not planned.copies[(documents.domains == domain) & ~usable].any()
        passes = quota.tokens // quota.supply if quota.supply else 0
        odd = ~np.isin(planned.copies[usable] - passes * table[usable].astype(int), [0])
        odd &= planned.copies[usable] != (passes + 1) * table[usable].astype(int)
        assert odd.sum() <= 1
    for document, rest in planned.cuts.items():
        assert 0 < rest < documents.num_tokens[document]
    assert len(planned.cuts) <= len(documents.domain_names)


def test_a_pass_over_everything_is_the_table_itself() -> None:
    documents = made(20_000)
    copies = FINEWEB2(documents.sizes)
    supply = int((copies.astype(int) * documents.num_tokens).sum())
    planned = plan(documents, copies, Target("all", supply, Temperature(1.0)))
    assert (planned.copies == copies).all()
    assert not planned.cuts
    assert not planned.unmet
    assert dict(copies_by_size(documents, planned).keys()) == {
        int(size): int(FINEWEB2(np.array([size]))[0]) for size in np.unique(documents.sizes)
    }


@pytest.mark.parametrize("budget", [1, 999_983, 3_000_000, 25_000_000])
def test_part_of_a_pass_and_several_passes_keep_the_table(budget: int) -> None:
    documents = made(5_000)
    copies = FINEWEB2(documents.sizes)
    planned = plan(documents, copies, Target("m", budget, UniMax(), max_epochs=100))
    assert sum(tokens_in(documents, planned)) == budget == planned.num_tokens
    for domain, quota in enumerate(planned.quotas):
        mine = documents.domains == domain
        passes = quota.tokens // quota.supply
        multiple = planned.copies[mine] / copies[mine]
        assert ((multiple == passes) | (multiple == passes + 1)).sum() >= mine.sum() - 1


def test_what_is_drawn_is_no_matter_of_length_size_or_source() -> None:
    documents = made(200_000, num_domains=1)
    copies = FINEWEB2(documents.sizes)
    half = int((copies.astype(int) * documents.num_tokens).sum()) // 2
    taken = plan(documents, copies, Target("m", half, UniMax())).copies > 0
    for column in (documents.num_tokens, documents.sizes, documents.sources, documents.bands):
        assert column[taken].mean() == pytest.approx(column.mean(), rel=0.02)
    assert taken.mean() == pytest.approx(0.5, abs=0.01)
    assert (plan(documents, copies, Target("m", half, UniMax()), seed=1).copies > 0).tolist() != taken.tolist()


def test_a_document_has_the_same_fate_wherever_it_stands() -> None:
    documents = made(3_000)
    target = Target("m", 400_000, UniMax(), max_epochs=2)
    copies = FINEWEB2(documents.sizes)
    planned = plan(documents, copies, target)
    order = np.random.default_rng(0).permutation(len(documents))
    moved = Documents(
        *(column[order] for column in list(vars(documents).values())[:6]),
        documents.domain_names,
        documents.source_names,
    )
    again = plan(moved, copies[order], target)
    assert (again.copies == planned.copies[order]).all()
    assert {int(moved.numbers[i]): rest for i, rest in again.cuts.items()} == {
        int(documents.numbers[i]): rest for i, rest in planned.cuts.items()
    }


def test_only_the_best_bands_are_sharpened_and_what_they_lack_is_said() -> None:
    documents = made(10_000)
    copies = ONCE(documents.sizes)
    best = int(documents.num_tokens[documents.bands >= 8].sum())
    planned = plan(documents, copies, Target("anneal", 2 * best + 5, UniMax(), max_epochs=2, min_band=8))
    assert not planned.copies[documents.bands < 8].any()
    assert (planned.copies[documents.bands >= 8] == 2).all()
    assert "5 of" in planned.unmet[-1]
    assert "one pass has" in planned.unmet[0]
    assert "and at most 2 may be made" in planned.unmet[0]


def test_a_domain_that_has_too_little_gives_its_cap_and_the_others_the_rest() -> None:
    documents = made(10_000, num_domains=3)
    copies = ONCE(documents.sizes)
    supply = [int(documents.num_tokens[documents.domains == i].sum()) for i in range(3)]
    target = Target("m", 3_000_000, Fixed({"d0": 1, "d1": 1, "d2": 8}), 1.0, {"d2": 0.25})
    planned = plan(documents, copies, target)
    given_ = [quota.tokens for quota in planned.quotas]
    assert given_[2] == supply[2] // 4
    assert abs(given_[0] - given_[1]) <= 1
    assert sum(given_) == 3_000_000
    assert len(planned.unmet) == 1
    assert planned.unmet[0].startswith(f"d2: 2,400,000 tokens were wanted, {given_[2]:,} are there")


def test_a_mixture_of_a_domain_without_text_says_so() -> None:
    documents = made(100, num_domains=2)
    empty = Documents(*list(vars(documents).values())[:6], ("d0", "d1", "d2"), documents.source_names)
    planned = plan(empty, ONCE(empty.sizes), Target("m", 1000, Fixed({"d0": 1, "d2": 1})))
    assert planned.unmet == ("d2: 500 tokens were wanted, 0 are there: it has no text",)
    with pytest.raises(StoreError, match="mixture m: 'web' is no domain of the corpus; write one of d0, d1"):
        plan(documents, ONCE(documents.sizes), Target("m", 1000, Fixed({"web": 1})))
    with pytest.raises(StoreError, match="mixture m: no domain has both a weight and text"):
        plan(documents, ONCE(documents.sizes), Target("m", 1000, UniMax(), min_band=99))


def test_trained_for_as_many_tokens_each_token_of_the_store_is_seen_once() -> None:
    documents = made(3_000)
    planned = plan(documents, ONCE(documents.sizes), Target("m", 1_234_567, Temperature(3.0), max_epochs=4))
    components = [
        Component(name, (), tokens, Fraction(tokens), 1.0, origin=name) for name, tokens in planned.weights.items()
    ]
    mixture = Mixture(components)
    mixture.check_caps(planned.num_tokens)
    assert mixture.quotas(planned.num_tokens) == list(planned.weights.values())
    assert mixture.epochs(planned.num_tokens) == [1.0] * len(components)


def test_the_tally_counts_every_token_once() -> None:
    documents = made(5_000)
    planned = plan(documents, FINEWEB2(documents.sizes), Target("m", 5_000_000, UniMax(), max_epochs=3))
    rows = tally(documents, planned)
    assert sum(row.planned_tokens for row in rows) == 5_000_000
    assert sum(row.num_tokens for row in rows) == documents.num_tokens.sum()
    assert sum(row.planned_copies for row in rows) == planned.copies.sum()
    assert [(row.domain, row.source, row.band, row.size) for row in rows] == sorted(
        (row.domain, row.source, row.band, row.size) for row in rows
    )
    one = next(row for row in rows if row.domain == "d1" and row.source == "s2" and row.band == 7 and row.size == 1)
    mine = (documents.domains == 1) & (documents.sources == 2) & (documents.bands == 7) & (documents.sizes == 1)
    assert one.num_documents == mine.sum()
    assert one.planned_documents == (planned.copies[mine] > 0).sum()


def test_allot_of_nothing() -> None:
    assert allot([], [], 10) == []
    assert allot([Fraction(1)], [5], 0) == [0]
