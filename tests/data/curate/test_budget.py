"""A plan meets its budget to the token, and holds the table of copies exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.data.made import web_lengths
from xgen.data import StoreError
from xgen.data.curate.balance import Fixed, Temperature, UniMax, allot
from xgen.data.curate.budget import Documents, Drawn, Plan, Rule, draw, plan
from xgen.data.curate.frequency import FINEWEB2, ONCE, CopyTable
from xgen.data.curate.quotas import Target
from xgen.data.curate.tally import Tally
from xgen.data.mixture import Component, Mixture


def made(count: int, table: CopyTable = ONCE, num_domains: int = 3, num_sources: int = 4, seed: int = 0) -> Documents:
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(count).astype(np.uint64) + np.uint64(7 << 32)
    num_tokens = np.array(web_lengths(count, seed), dtype=np.uint32).clip(1, 20_000)
    domains = rng.choice(num_domains, count, p=np.arange(num_domains, 0, -1) / sum(range(num_domains + 1)))
    sources = rng.integers(0, num_sources, count)
    bands = rng.integers(0, 10, count)
    sizes = np.minimum(rng.zipf(1.8, count), 5000)
    return Documents(numbers, num_tokens, domains, sources, bands, sizes, table(sizes))


def names_of(documents: Documents) -> list[str]:
    return [f"d{i}" for i in range(int(documents.domains.max()) + 1)]


def rows_of(documents: Documents, rows: NDArray[Any]) -> Documents:
    return Documents(*(getattr(documents, one.name)[rows] for one in fields(documents)))


@dataclass(frozen=True)
class Planned:
    """A plan, and what it takes of all documents."""

    plan: Plan
    copies: NDArray[np.uint32]
    cuts: Mapping[int, int]


def planned(
    documents: Documents, target: Target, seed: int = 0, names: Sequence[str] | None = None, num_parts: int = 1
) -> Planned:
    parts = [rows_of(documents, rows) for rows in np.array_split(np.arange(len(documents)), num_parts)]

    def give(rule: Rule | None) -> list[Documents]:
        return [one if rule is None else rows_of(one, np.flatnonzero(rule(one.numbers))) for one in parts]

    found = plan(give, names or names_of(documents), target, seed)
    drawn = draw(documents, target, found.ends, seed)
    return Planned(found, drawn.copies, drawn.cuts)


def tokens_in(documents: Documents, taken: Planned | Drawn, num_domains: int) -> list[int]:
    """Tokens of each domain as a writer would write them: copy by copy."""
    totals = [0] * num_domains
    for i in range(len(documents)):
        length, copies = int(documents.num_tokens[i]), int(taken.copies[i])
        for copy in range(copies):
            cut = taken.cuts.get(i) if copy == copies - 1 else None
            totals[int(documents.domains[i])] += length if cut is None else cut
    return totals


@st.composite
def corpora(draw: st.DrawFn) -> tuple[Documents, list[str], Target]:
    count, num_domains = draw(st.integers(1, 60)), draw(st.integers(1, 4))
    column = lambda low, high: np.array(draw(st.lists(st.integers(low, high), min_size=count, max_size=count)))  # noqa: E731
    numbers = np.array(
        draw(st.lists(st.integers(0, 2**64 - 1), min_size=count, max_size=count, unique=True)), np.uint64
    )
    documents = Documents(
        numbers,
        column(1, 50),
        column(0, num_domains - 1),
        np.zeros(count, np.int64),
        column(0, 3),
        column(1, 8),
        column(0, 3).astype(np.uint16),
    )
    names = [f"d{i}" for i in range(num_domains)]
    weights = {name: draw(st.floats(0.01, 10)) for name in names}
    target = Target(
        "m",
        draw(st.integers(1, 5000)),
        draw(st.sampled_from([Fixed(weights), Temperature(2.0), UniMax()])),
        draw(st.sampled_from([0.5, 1.0, 1.7, 4.0, 1000.0])),
        min_band=draw(st.integers(0, 1)),
    )
    return documents, names, target


@given(corpora(), st.integers(1, 4))
def test_budget_caps_and_table_hold_whatever_the_corpus(
    corpus: tuple[Documents, list[str], Target], num_parts: int
) -> None:
    documents, names, target = corpus
    table = documents.copies
    try:
        found = planned(documents, target, 3, names, num_parts)
    except StoreError:
        usable = (documents.bands >= target.min_band) & (table > 0)
        assert (documents.num_tokens * table * usable).sum() * target.max_epochs < 50 * len(names)
        return
    quotas, unmet, num_tokens = found.plan.quotas, found.plan.unmet, found.plan.num_tokens
    assert tokens_in(documents, found, len(names)) == [quota.tokens for quota in quotas]
    for quota in quotas:
        assert quota.tokens <= quota.cap == int(Fraction(str(target.max_epochs)) * quota.supply)
    if num_tokens == target.num_tokens:
        assert not any("are missing" in line for line in unmet)
    else:
        assert num_tokens < target.num_tokens
        assert all(quota.tokens == quota.cap for quota in quotas)
        assert f"{target.num_tokens - num_tokens:,} of {target.num_tokens:,} tokens are missing" in str(unmet)
    for domain, quota in enumerate(quotas):
        usable = (documents.domains == domain) & (documents.bands >= target.min_band) & (table > 0)
        assert not found.copies[(documents.domains == domain) & ~usable].any()
        passes = quota.tokens // quota.supply if quota.supply else 0
        odd = ~np.isin(found.copies[usable] - passes * table[usable].astype(int), [0])
        odd &= found.copies[usable] != (passes + 1) * table[usable].astype(int)
        assert odd.sum() <= 1
    for document, rest in found.cuts.items():
        assert 0 < rest < documents.num_tokens[document]
    assert len(found.cuts) <= len(names)


def test_a_pass_over_everything_is_the_table_itself() -> None:
    documents = made(20_000, FINEWEB2)
    supply = int((documents.copies.astype(int) * documents.num_tokens).sum())
    found = planned(documents, Target("all", supply, Temperature(1.0)))
    assert (found.copies == documents.copies).all()
    assert not found.cuts
    assert not found.plan.unmet


@pytest.mark.parametrize("budget", [1, 999_983, 3_000_000, 25_000_000])
def test_part_of_a_pass_and_several_passes_keep_the_table(budget: int) -> None:
    documents = made(5_000, FINEWEB2)
    found = planned(documents, Target("m", budget, UniMax(), max_epochs=100))
    assert sum(tokens_in(documents, found, 3)) == budget == found.plan.num_tokens
    for domain, quota in enumerate(found.plan.quotas):
        mine = documents.domains == domain
        passes = quota.tokens // quota.supply
        multiple = found.copies[mine] / documents.copies[mine]
        assert ((multiple == passes) | (multiple == passes + 1)).sum() >= mine.sum() - 1


def test_what_is_drawn_is_no_matter_of_length_size_or_source() -> None:
    documents = made(200_000, FINEWEB2, num_domains=1)
    half = int((documents.copies.astype(int) * documents.num_tokens).sum()) // 2
    taken = planned(documents, Target("m", half, UniMax())).copies > 0
    for column in (documents.num_tokens, documents.sizes, documents.sources, documents.bands):
        assert column[taken].mean() == pytest.approx(column.mean(), rel=0.02)
    assert taken.mean() == pytest.approx(0.5, abs=0.01)
    assert (planned(documents, Target("m", half, UniMax()), seed=1).copies > 0).tolist() != taken.tolist()


def test_a_document_has_the_same_fate_wherever_it_stands() -> None:
    documents = made(3_000, FINEWEB2)
    target = Target("m", 400_000, UniMax(), max_epochs=2)
    found = planned(documents, target)
    order = np.random.default_rng(0).permutation(len(documents))
    moved = rows_of(documents, order)
    again = planned(moved, target, num_parts=7)
    assert again.plan == found.plan
    assert (again.copies == found.copies[order]).all()
    assert {int(moved.numbers[i]): rest for i, rest in again.cuts.items()} == {
        int(documents.numbers[i]): rest for i, rest in found.cuts.items()
    }


def test_all_but_the_few_where_a_quota_ends_are_read_once() -> None:
    documents = made(50_000, FINEWEB2)
    again: list[int] = []

    def give(rule: Rule | None) -> list[Documents]:
        if rule is None:
            return [documents]
        rows = np.flatnonzero(rule(documents.numbers))
        again.append(len(rows))
        return [rows_of(documents, rows)]

    plan(give, names_of(documents), Target("m", 3_000_000, UniMax()))
    assert len(again) == 1
    assert 3 <= again[0] < 30


def test_only_the_best_bands_are_sharpened_and_what_they_lack_is_said() -> None:
    documents = made(10_000)
    best = int(documents.num_tokens[documents.bands >= 8].sum())
    found = planned(documents, Target("anneal", 2 * best + 5, UniMax(), max_epochs=2, min_band=8))
    assert not found.copies[documents.bands < 8].any()
    assert (found.copies[documents.bands >= 8] == 2).all()
    unmet = found.plan.unmet
    assert "5 of" in unmet[-1]
    assert "one pass has" in unmet[0]
    assert "and at most 2 may be made" in unmet[0]


def test_a_domain_that_has_too_little_gives_its_cap_and_the_others_the_rest() -> None:
    documents = made(10_000)
    supply = [int(documents.num_tokens[documents.domains == i].sum()) for i in range(3)]
    target = Target("m", 3_000_000, Fixed({"d0": 1, "d1": 1, "d2": 8}), 1.0, {"d2": 0.25})
    found = planned(documents, target).plan
    given_ = [quota.tokens for quota in found.quotas]
    assert given_[2] == supply[2] // 4
    assert abs(given_[0] - given_[1]) <= 1
    assert sum(given_) == 3_000_000
    assert len(found.unmet) == 1
    assert found.unmet[0].startswith(f"d2: 2,400,000 tokens were wanted, {given_[2]:,} are there")


def test_a_mixture_of_a_domain_without_text_says_so() -> None:
    documents, names = made(100, num_domains=2), ["d0", "d1", "d2"]
    found = planned(documents, Target("m", 1000, Fixed({"d0": 1, "d2": 1})), names=names)
    assert found.plan.unmet == ("d2: 500 tokens were wanted, 0 are there: it has no text",)
    with pytest.raises(StoreError, match="mixture m: 'web' is no domain of the corpus; write one of d0, d1"):
        planned(documents, Target("m", 1000, Fixed({"web": 1})))
    with pytest.raises(StoreError, match="mixture m: no domain has both a weight and text"):
        planned(documents, Target("m", 1000, UniMax(), min_band=99))


def test_trained_for_as_many_tokens_each_token_of_the_store_is_seen_once() -> None:
    found = planned(made(3_000), Target("m", 1_234_567, Temperature(3.0), max_epochs=4)).plan
    components = [
        Component(name, (), tokens, Fraction(tokens), 1.0, origin=name) for name, tokens in found.weights.items()
    ]
    mixture = Mixture(components)
    mixture.check_caps(found.num_tokens)
    assert mixture.quotas(found.num_tokens) == list(found.weights.values())
    assert mixture.epochs(found.num_tokens) == [1.0] * len(components)


def test_the_tally_counts_every_token_once_however_it_was_cut() -> None:
    documents = made(5_000, FINEWEB2)
    target = Target("m", 5_000_000, UniMax(), max_epochs=3)
    found = planned(documents, target)
    tallies = []
    for rows in np.array_split(np.random.default_rng(0).permutation(len(documents)), 6):
        part = rows_of(documents, rows)
        tallies.append(Tally.count(part, draw(part, target, found.plan.ends, 0), 3))
    tally = Tally.merge(tallies)
    assert tally.rows[:, 8].sum() == 5_000_000
    assert tally.rows[:, 5].sum() == documents.num_tokens.sum()
    assert tally.rows[:, 7].sum() == found.copies.sum() == tally.lengths.sum()
    assert tally.copies.tolist() == list(map(list, zip(*np.unique(found.copies, return_counts=True), strict=True)))
    keys = tally.rows[:, :4].tolist()
    assert keys == sorted(keys)
    assert len(set(map(tuple, keys))) == len(keys)
    mine = (documents.domains == 1) & (documents.sources == 2) & (documents.bands == 7) & (documents.sizes == 1)
    row = tally.rows[keys.index([1, 2, 7, 0])]
    assert row[4] == mine.sum()
    assert row[6] == (found.copies[mine] > 0).sum()


def test_allot_of_nothing() -> None:
    assert allot([], [], 10) == []
    assert allot([Fraction(1)], [5], 0) == [0]
