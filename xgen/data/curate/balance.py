"""How a budget of tokens is shared among domains: weights by one of four rules, and exact integers under caps.

Fixed weights are a person's, or a regression's (regmix.py). `Temperature` takes p ~ n^(1/T). `UniMax` (arXiv
2304.09151) gives all domains alike and no domain more than its epochs allow; what a small one cannot take goes to the
others. That is what caps do to any weights here, so UniMax is equal weights, and needs no algorithm of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from xgen.data.errors import StoreError


@dataclass(frozen=True)
class Fixed:
    """Relative to each other; a domain that is not named gets nothing."""

    by_domain: Mapping[str, float]


@dataclass(frozen=True)
class Temperature:
    """Tokens to the power 1/T: 1 is in proportion, larger ones raise what is rare."""

    temperature: float


@dataclass(frozen=True)
class UniMax:
    """All alike, up to the cap on epochs."""


Balance = Fixed | Temperature | UniMax


def weights_of(balance: Balance, supply: Mapping[str, int], place: str = "balance") -> dict[str, Fraction]:
    """Weights of the domains of `supply` (tokens), in its order, which sum to 1.

    Raises StoreError that names `place` for a domain that `supply` does not know, and for weights that are none.
    """
    if isinstance(balance, Fixed):
        if unknown := [name for name in balance.by_domain if name not in supply]:
            known = ", ".join(supply)
            raise StoreError(place, f"{unknown[0]!r} is no domain of the corpus", f"write one of {known}")
        if bad := [name for name, weight in balance.by_domain.items() if not 0 <= weight < float("inf")]:
            raise StoreError(place, f"{bad[0]}: {balance.by_domain[bad[0]]} is no weight", "write 0 or more")
        # As it is written, not as the nearest binary fraction.
        raw = {name: Fraction(str(balance.by_domain.get(name, 0))) for name in supply}
    elif isinstance(balance, Temperature):
        if not balance.temperature > 0:
            raise StoreError(place, f"{balance.temperature} is no temperature", "write 1 or more")
        most = max(supply.values(), default=0)
        raw = {
            name: Fraction((tokens / most) ** (1 / balance.temperature)) if tokens else Fraction(0)
            for name, tokens in supply.items()
        }
    else:
        raw = {name: Fraction(1 if tokens else 0) for name, tokens in supply.items()}
    total = sum(raw.values())
    if not total:
        raise StoreError(place, "no domain has both a weight and text", "name domains that the corpus has")
    return {name: weight / total for name, weight in raw.items()}


def allot(weights: Sequence[Fraction], caps: Sequence[int], budget: int) -> list[int]:
    """Tokens of each, in proportion to `weights` and at most `caps`; what one cannot take goes to the others.

    They sum to `budget`, or to all caps of those with a weight where these are less; whoever is below its cap has its
    share to within one token.
    """
    tokens = [0] * len(weights)
    open_ = [i for i, weight in enumerate(weights) if weight > 0]
    left = budget
    while open_:
        whole = sum(weights[i] for i in open_)
        full = [i for i in open_ if weights[i] * left >= caps[i] * whole]
        if not full:
            shares = {i: weights[i] * left / whole for i in open_}
            for i, share in shares.items():
                tokens[i] = int(share)
            # The largest remainders are rounded up; of equal ones the first.
            missing = left - sum(tokens[i] for i in open_)
            for i in sorted(open_, key=lambda i: (tokens[i] - shares[i], i))[:missing]:
                tokens[i] += 1
            break
        for i in full:
            tokens[i] = caps[i]
            left -= caps[i]
        open_ = [i for i in open_ if i not in full]
    return tokens
