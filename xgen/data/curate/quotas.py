"""What a mixture asks of each group of documents, and what each can give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from xgen.data.curate.balance import Balance, allot, weights_of
from xgen.data.errors import StoreError


@dataclass(frozen=True)
class LongShare:
    """Documents of `min_tokens` and more are long; they give `share` of the tokens."""

    min_tokens: int
    share: float = 0.4


@dataclass(frozen=True)
class Target:
    """A mixture that is wanted."""

    name: str
    num_tokens: int
    balance: Balance
    max_epochs: float = 1.0  # passes over a domain, each with the copies of the table
    max_epochs_of: Mapping[str, float] = field(default_factory=dict)  # where a domain has another cap
    min_band: int = 0
    long: LongShare | None = None

    def epochs(self, domain: str) -> Fraction:
        return Fraction(str(self.max_epochs_of.get(domain, self.max_epochs)))


@dataclass(frozen=True)
class Quota:
    """What a group of documents was asked for and what it gives."""

    domain: str
    part: str  # of the domain: "long", "short"; "" for all
    num_documents: int
    supply: int  # tokens of one pass
    cap: int  # tokens it can give at most
    wanted: int  # tokens, by weight alone
    tokens: int  # that it gives

    @property
    def epochs(self) -> float:
        return self.tokens / self.supply if self.supply else 0.0


def quotas_of(
    target: Target, names: Sequence[str], num_documents: Sequence[int], supply: Sequence[int]
) -> tuple[Quota, ...]:
    """Of each domain; `supply` are tokens of one pass. Raises StoreError for weights of unknown domains."""
    place = f"mixture {target.name}"
    weights = list(weights_of(target.balance, dict(zip(names, supply, strict=True)), place).values())
    caps = [int(target.epochs(name) * tokens) for name, tokens in zip(names, supply, strict=True)]
    tokens = allot(weights, caps, target.num_tokens)
    if not sum(tokens):
        raise StoreError(place, "has no text", "lower min_band, or raise max_epochs")
    wanted = [round(weight * target.num_tokens) for weight in weights]
    return tuple(
        Quota(name, "", *rest) for name, *rest in zip(names, num_documents, supply, caps, wanted, tokens, strict=True)
    )


def unmet_of(target: Target, quotas: Sequence[Quota]) -> tuple[str, ...]:
    """What of a mixture could not be, and why, one line each."""
    lines = []
    for quota in quotas:
        name = f"{quota.domain} ({quota.part})" if quota.part else quota.domain
        if quota.tokens >= quota.wanted or quota.tokens < quota.cap:
            continue
        why = f"one pass has {quota.supply:,} and at most {float(target.epochs(quota.domain)):g} may be made"
        if not quota.num_documents:
            why = f"it has no document of band {target.min_band} or better" if target.min_band else "it has no text"
        lines.append(f"{name}: {quota.wanted:,} tokens were wanted, {quota.tokens:,} are there: {why}")
    if missing := target.num_tokens - sum(quota.tokens for quota in quotas):
        lines.append(f"{missing:,} of {target.num_tokens:,} tokens are missing: every domain gives all that it may")
    return tuple(lines)
