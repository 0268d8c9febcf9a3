"""Shares of domains: exact integers under caps."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgen.data import StoreError
from xgen.data.curate.balance import Fixed, Temperature, UniMax, allot, weights_of

weights_and_caps = st.lists(st.tuples(st.fractions(0, 10), st.integers(0, 10**12)), min_size=1, max_size=12)


def unimax_of_the_paper(characters: list[int], budget: int, max_epochs: int) -> list[Fraction]:
    """Algorithm 1 of arXiv 2304.09151: from the smallest language on, an equal share of what is left, or its cap."""
    left, budgets = Fraction(budget), [Fraction(0)] * len(characters)
    smallest_first = sorted(range(len(characters)), key=lambda i: characters[i])
    for taken, i in enumerate(smallest_first):
        budgets[i] = min(left / (len(characters) - taken), Fraction(max_epochs * characters[i]))
        left -= budgets[i]
    return budgets


@given(
    characters=st.lists(st.integers(1, 10**12), min_size=1, max_size=20),
    budget=st.integers(1, 10**13),
    max_epochs=st.integers(1, 8),
)
def test_equal_weights_under_caps_are_unimax(characters: list[int], budget: int, max_epochs: int) -> None:
    supply = {str(i): n for i, n in enumerate(characters)}
    weights = weights_of(UniMax(), supply)
    tokens = allot(list(weights.values()), [max_epochs * n for n in characters], budget)
    for mine, theirs in zip(tokens, unimax_of_the_paper(characters, budget, max_epochs), strict=True):
        assert abs(mine - theirs) < 1


def test_unimax_gives_what_the_package_unimax_sampling_documents() -> None:
    supply = {
        "swe": 179955884499,
        "fas": 184595788282,
        "ekk": 42541080893,
        "isl": 10027573389,
        "fao": 549707867,
    }
    weights = weights_of(UniMax(), supply)
    tokens = allot(list(weights.values()), [4 * n for n in supply.values()], 250_000_000_000)
    assert dict(zip(supply, tokens, strict=True)) == {
        "swe": 69230291659,
        "fas": 69230291659,
        "ekk": 69230291658,
        "isl": 40110293556,
        "fao": 2198831468,
    }


@given(pairs=weights_and_caps, budget=st.integers(0, 10**13))
def test_whatever_the_caps_the_budget_is_met_to_the_token_or_everything_is_given(
    pairs: list[tuple[Fraction, int]], budget: int
) -> None:
    weights, caps = [weight for weight, _ in pairs], [cap for _, cap in pairs]
    tokens = allot(weights, caps, budget)
    usable = sum(cap for weight, cap in pairs if weight)
    assert sum(tokens) == min(budget, usable)
    assert all(0 <= given_ <= cap for given_, cap in zip(tokens, caps, strict=True))
    assert all(given_ == 0 for given_, weight in zip(tokens, weights, strict=True) if not weight)
    below = [i for i in range(len(pairs)) if weights[i] and tokens[i] < caps[i]]
    for i in below:
        # Nobody below its cap has less, per weight, than anybody else.
        assert all(
            (tokens[i] + 1) / weights[i] >= (tokens[j] - 1) / weights[j] for j in range(len(pairs)) if weights[j]
        )


def test_a_temperature_raises_what_is_rare() -> None:
    supply = {"web": 10**12, "code": 10**10, "none": 0}
    assert weights_of(Temperature(1.0), supply)["code"] == pytest.approx(1 / 101)
    assert weights_of(Temperature(2.0), supply)["code"] == pytest.approx(1 / 11)
    assert weights_of(Temperature(float("inf")), supply) == {"web": Fraction(1, 2), "code": Fraction(1, 2), "none": 0}
    assert weights_of(Temperature(5.0), supply)["none"] == 0


def test_fixed_weights_mean_what_is_written() -> None:
    supply = {"web": 5, "code": 5, "math": 5}
    assert weights_of(Fixed({"web": 0.1, "code": 0.2}), supply) == {
        "web": Fraction(1, 3),
        "code": Fraction(2, 3),
        "math": 0,
    }


def test_weights_that_are_none_are_refused() -> None:
    supply = {"web": 5}
    with pytest.raises(StoreError, match="balance: 'cod' is no domain of the corpus; write one of web"):
        weights_of(Fixed({"cod": 1}), supply)
    with pytest.raises(StoreError, match="balance: web: -1 is no weight"):
        weights_of(Fixed({"web": -1}), supply)
    with pytest.raises(StoreError, match="0 is no temperature"):
        weights_of(Temperature(0), supply)
    with pytest.raises(StoreError, match="no domain has both a weight and text"):
        weights_of(Fixed({"web": 0}), supply)
