"""Numbers as a person reads them."""

from __future__ import annotations

import math

import pytest

from xgen.drawing.wording import share, size, tokens, value


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (12_345_678, "12.3 MB"),
        (999_999, "1 MB"),
        (5_000_000_000_000, "5 TB"),
    ],
)
def test_sizes(number: int, said: str) -> None:
    assert size(number) == said


def test_shares_never_say_nothing_of_something_nor_all_of_less() -> None:
    assert share(1, 10**9) == "< 0.01%" and share(10**9 - 1, 10**9) == "> 99.99%"
    assert share(0, 5) == "0.00%" and share(5, 5) == "100.0%" and share(1, 0) == "-"
    assert share(1, 3) == "33.3%" and share(996, 1000) == "99.60%"


def test_numbers_of_rules_and_tokens() -> None:
    assert value(None) == "-" and value(math.inf) == "∞" and value(50.0) == "50" and value(0.12346) == "0.1235"
    assert tokens(20_000_000) == "20M" and tokens(1_230_000_000) == "1.23B" and tokens(12) == "12"
