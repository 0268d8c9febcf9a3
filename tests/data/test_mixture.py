"""Shares are exact to the token at every point of the training, and caps on repeats hold."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.made import made_mixture
from xgen.data import StoreError, TokenStore, make_mixture
from xgen.spec import Share

weights = st.lists(st.integers(1, 10**6), min_size=1, max_size=20)


@given(weights=weights, tokens=st.integers(0, 10**14))
def test_quotas_sum_to_all_and_are_off_by_less_than_one_token(weights: list[int], tokens: int) -> None:
    mixture = made_mixture(*(([[5]], weight) for weight in weights))
    quotas = mixture.quotas(tokens)
    assert sum(quotas) == tokens
    for quota, weight in zip(quotas, weights, strict=True):
        assert abs(quota - Fraction(tokens * weight, sum(weights))) < 1


def test_a_weight_means_what_is_written_and_not_the_nearest_binary_fraction() -> None:
    mixture = made_mixture(([[5]], 0.1), ([[5]], 0.2), ([[5]], 0.7))
    assert mixture.quotas(10**15) == [10**14, 2 * 10**14, 7 * 10**14]


def test_text_that_would_be_seen_too_often_is_refused_with_the_share_that_would_do() -> None:
    mixture = made_mixture(([[1000]], 0.5), ([[100_000]], 0.5), max_epochs=4)
    mixture.check_caps(8000)
    with pytest.raises(StoreError, match=r"d0: 1,000 tokens would be seen 5.00 times .* a share of at most 0.4"):
        mixture.check_caps(10_000)


def test_without_a_mixture_all_text_comes_in_proportion(store: TokenStore) -> None:
    mixture = make_mixture({"main": store}, {})
    assert mixture.quotas(store.meta.num_tokens) == [domain.num_tokens for domain in store.meta.domains]
    assert mixture.epochs(store.meta.num_tokens) == [1.0] * len(store.meta.domains)


def test_names_mean_domains_of_all_stores_or_of_one(store: TokenStore) -> None:
    name = store.meta.domains[0].name
    both = {"a": store, "b": store}
    assert make_mixture(both, {name: Share(weight=1)}).components[0].num_tokens == 2 * store.meta.domains[0].num_tokens
    one = make_mixture(both, {f"b/{name}": Share(weight=1), "a/*": Share(weight=2, max_epochs=3)}, max_epochs=9)
    assert [component.num_tokens for component in one.components] == [
        store.meta.domains[0].num_tokens,
        store.meta.num_tokens,
    ]
    assert [component.max_epochs for component in one.components] == [9, 3]


def test_unknown_and_doubly_named_text_is_refused(store: TokenStore) -> None:
    name = store.meta.domains[0].name
    with pytest.raises(StoreError, match=f"mixture: nosuch: is in no store; write one of .*main/{name}"):
        make_mixture({"main": store}, {"nosuch": Share(weight=1)})
    with pytest.raises(StoreError, match=rf"takes main/{name}, which {name} takes too; name it once"):
        make_mixture({"main": store}, {name: Share(weight=1), "main/*": Share(weight=1)})
