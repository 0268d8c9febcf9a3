"""The mixture for length extension: 40% long, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.curate.test_budget import made, planned, tokens_in
from xgen.data import StoreError
from xgen.data.curate.balance import Balance, Fixed, UniMax
from xgen.data.curate.frequency import FINEWEB2
from xgen.data.curate.quotas import LongShare, Target

BOUNDARY = 4096


def target(num_tokens: int, balance: Balance, max_epochs: float = 1.0, share: float = 0.4) -> Target:
    return Target("long", num_tokens, balance, max_epochs, long=LongShare(BOUNDARY, share))


def test_two_fifths_of_the_tokens_are_of_long_documents_in_every_domain() -> None:
    documents = made(100_000)
    found = planned(documents, target(10_000_000, Fixed({"d0": 2, "d1": 1, "d2": 1})))
    assert sum(tokens_in(documents, found, 3)) == found.plan.num_tokens == 10_000_000
    assert not found.plan.unmet
    assert {(quota.domain, quota.part): quota.tokens for quota in found.plan.quotas} == {
        ("d0", "long"): 2_000_000,
        ("d0", "short"): 3_000_000,
        ("d1", "long"): 1_000_000,
        ("d1", "short"): 1_500_000,
        ("d2", "long"): 1_000_000,
        ("d2", "short"): 1_500_000,
    }
    assert found.plan.weights == {"d0": 5_000_000, "d1": 2_500_000, "d2": 2_500_000}
    long = documents.num_tokens >= BOUNDARY
    written = int((found.copies[long] * documents.num_tokens[long].astype(int)).sum())
    assert written == pytest.approx(4_000_000, abs=3 * 20_000)


def test_the_distribution_of_lengths_is_kept_within_either_part() -> None:
    documents = made(200_000, FINEWEB2, num_domains=1)
    taken = planned(documents, target(60_000_000, UniMax())).copies > 0
    for part in (documents.num_tokens >= BOUNDARY, documents.num_tokens < BOUNDARY):
        every, drawn = np.sort(documents.num_tokens[part]), np.sort(documents.num_tokens[part & taken])
        assert 500 < len(drawn) < 0.9 * len(every)
        # Kolmogorov and Smirnov: at most 1.63 / sqrt(n) with 99%.
        distance = np.abs(
            np.searchsorted(drawn, every, side="right") / len(drawn) - np.arange(1, len(every) + 1) / len(every)
        )
        assert distance.max() < 1.63 / np.sqrt(len(drawn))


def test_domains_without_long_documents_leave_them_to_the_others() -> None:
    documents = made(20_000, num_domains=2)
    short = (documents.domains == 1) & (documents.num_tokens >= BOUNDARY)
    documents.num_tokens[short] = 100
    found = planned(documents, target(1_000_000, UniMax())).plan
    assert [quota.tokens for quota in found.quotas] == [400_000, 300_000, 0, 300_000]
    assert len(found.unmet) == 1
    assert found.unmet[0].startswith("d1 (long): 200,000 tokens were wanted, 0 are there")


def test_where_long_text_is_short_the_budget_is_met_by_the_rest() -> None:
    documents = made(5_000)
    long = int(documents.num_tokens[documents.num_tokens >= BOUNDARY].sum())
    found = planned(documents, target(long, UniMax(), 0.5, 0.9))
    assert found.plan.num_tokens == long == sum(tokens_in(documents, found, 3))
    assert all(quota.tokens == quota.cap for quota in found.plan.quotas if quota.part == "long")
    assert any("d0 (long)" in line for line in found.plan.unmet)


@given(
    budget=st.integers(1, 2_000_000),
    share=st.floats(0.01, 0.99),
    epochs=st.sampled_from([0.5, 1.0, 3.0]),
    boundary=st.integers(1, 20_000),
)
def test_the_budget_is_met_whatever_the_shares(budget: int, share: float, epochs: float, boundary: int) -> None:
    documents = made(300, FINEWEB2)
    found = planned(documents, Target("m", budget, UniMax(), epochs, long=LongShare(boundary, share)), num_parts=3)
    assert tokens_in(documents, found, 3) == [found.plan.weights.get(name, 0) for name in ("d0", "d1", "d2")]
    if found.plan.num_tokens < budget:
        assert all(quota.tokens == quota.cap for quota in found.plan.quotas)
        assert "tokens are missing" in found.plan.unmet[-1]


def test_a_share_of_everything_is_refused() -> None:
    with pytest.raises(StoreError, match=r"mixture long: 1\.0 is no share of long documents"):
        planned(made(10), target(10, UniMax(), share=1.0))
