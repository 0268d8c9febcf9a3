"""The exact plan: how many copies of each document a mixture has, so that its budget is met to the token.

The table of frequencies says how many copies a document has in one pass over its domain. The domain's quota is some
whole passes, and documents of one more in an order that their numbers fix, each with exactly the copies of the table,
until the quota is reached; the last one is cut. So apart from one document a domain, the number of copies is a
multiple of the table's.

All is arrays, some 70 bytes a document at the peak: 100 million take 7 GB and half a minute. Beyond that plan parts of
the corpus by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.balance import Balance, allot, weights_of
from xgen.data.curate.spread import document_keys
from xgen.data.errors import StoreError

_Counts = NDArray[np.int64]
_BUCKET_BITS = 16  # of hashes


@dataclass(frozen=True)
class Documents:
    """Every document that is kept, as parallel arrays in the order of their numbers."""

    numbers: NDArray[np.uint64]
    num_tokens: NDArray[np.integer]  # with the end of text
    domains: NDArray[np.integer]  # in `domain_names`
    sources: NDArray[np.integer]  # in `source_names`
    bands: NDArray[np.integer]  # of quality; the highest is the best
    sizes: NDArray[np.integer]  # of clusters
    domain_names: Sequence[str]
    source_names: Sequence[str]

    def __post_init__(self) -> None:
        arrays = (self.numbers, self.num_tokens, self.domains, self.sources, self.bands, self.sizes)
        assert len({len(array) for array in arrays}) == 1
        assert not len(self) or int(self.num_tokens.min()) > 0

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True)
class Target:
    """A mixture that is wanted."""

    name: str
    num_tokens: int
    balance: Balance
    max_epochs: float = 1.0  # passes over a domain, each with the copies of the table
    max_epochs_of: Mapping[str, float] = field(default_factory=dict)  # where a domain has another cap
    min_band: int = 0

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


@dataclass(frozen=True)
class Plan:
    """Copies of every document, with what was cut and what could not be."""

    name: str
    budget: int
    copies: NDArray[np.uint32]  # [documents]
    cuts: Mapping[int, int]  # by document (its place in the arrays): tokens of its last copy, if not all
    quotas: tuple[Quota, ...]
    unmet: tuple[str, ...]  # what was wanted and is not there, and why

    @property
    def num_tokens(self) -> int:
        return sum(quota.tokens for quota in self.quotas)

    @property
    def weights(self) -> dict[str, int]:
        """For `data.mixtures` of a pretrain spec: a training of as many tokens sees each token of the store once."""
        tokens: dict[str, int] = {}
        for quota in self.quotas:
            tokens[quota.domain] = tokens.get(quota.domain, 0) + quota.tokens
        return {domain: number for domain, number in tokens.items() if number}


def plan(documents: Documents, copies: NDArray[np.integer], target: Target, seed: int = 0) -> Plan:
    """The plan for `target`, where a pass over a domain has `copies` of each document (frequency.py).

    What caps and lack of text leave of the budget is said in `unmet`. Raises StoreError for weights of unknown domains
    and a mixture without any text.
    """
    groups = np.where((documents.bands >= target.min_band) & (copies > 0), documents.domains, -1)
    num_documents, supply = supplies(documents, copies, groups, len(documents.domain_names))
    place = f"mixture {target.name}"
    names = list(documents.domain_names)
    weights = list(weights_of(target.balance, dict(zip(names, supply, strict=True)), place).values())
    caps = [int(target.epochs(name) * tokens) for name, tokens in zip(names, supply, strict=True)]
    tokens = allot(weights, caps, target.num_tokens)
    if not sum(tokens):
        raise StoreError(place, "has no text", "lower min_band, or raise max_epochs")
    wanted = [round(weight * target.num_tokens) for weight in weights]
    quotas = tuple(
        Quota(name, "", *rest) for name, *rest in zip(names, num_documents, supply, caps, wanted, tokens, strict=True)
    )
    drawn, cuts = draw(documents, copies, groups, tokens, seed)
    return Plan(target.name, target.num_tokens, drawn, cuts, quotas, unmet_of(target, quotas))


def supplies(
    documents: Documents, copies: NDArray[np.integer], groups: NDArray[np.integer], num_groups: int
) -> tuple[list[int], list[int]]:
    """Documents of each group, and tokens of one pass over it; group -1 is left out."""
    # Sums of floats are exact up to 2^53 tokens.
    counts = np.bincount(groups + 1, minlength=num_groups + 1)
    tokens = np.bincount(groups + 1, weights=_tokens(documents, copies), minlength=num_groups + 1)
    return counts[1:].tolist(), tokens[1:].astype(np.int64).tolist()


def draw(
    documents: Documents, copies: NDArray[np.integer], groups: NDArray[np.integer], quotas: Sequence[int], seed: int
) -> tuple[NDArray[np.uint32], dict[int, int]]:
    """Copies of each document so that group g has exactly `quotas[g]` tokens, and the cuts: {document: tokens of its
    last copy}.

    Of the last pass a group takes the documents of the lowest hashes. Nothing but the few of the one bucket of hashes
    in which its quota ends has to be sorted.
    """
    keys = document_keys(documents.numbers, "draw", seed)
    tokens = _tokens(documents, copies)
    buckets = (groups + 1).astype(np.int64) << _BUCKET_BITS
    buckets |= (keys >> np.uint64(64 - _BUCKET_BITS)).astype(np.int64)
    # Sums of floats are exact up to 2^53 tokens.
    sums = np.bincount(buckets, weights=tokens, minlength=(len(quotas) + 1) << _BUCKET_BITS)
    passes, left, ends = [0], [0], [0]  # by group, from -1 on: of the last pass, and the bucket in which it ends
    for group, quota in enumerate(quotas):
        cumulated = np.cumsum(sums[(group + 1) << _BUCKET_BITS : (group + 2) << _BUCKET_BITS])
        whole, rest = divmod(quota, int(cumulated[-1])) if quota else (0, 0)
        end = int(np.searchsorted(cumulated, rest, side="right"))
        passes.append(whole)
        left.append(rest - int(cumulated[end - 1]) if end else rest)
        ends.append((group + 1 << _BUCKET_BITS) + end)
    del sums
    drawn = np.array(passes, dtype=np.uint32)[groups + 1]
    end_of = np.array(ends)[groups + 1]
    drawn += buckets < end_of
    drawn *= copies.astype(np.uint32)
    drawn[groups < 0] = 0
    last = np.flatnonzero((buckets == end_of) & (groups >= 0))
    last = last[np.lexsort((keys[last], groups[last]))]
    cuts: dict[int, int] = {}
    for document, group in zip(last.tolist(), groups[last].tolist(), strict=True):
        rest = left[group + 1]
        if rest >= tokens[document]:
            drawn[document] += copies[document]
        elif rest:
            some, cut = divmod(rest, int(documents.num_tokens[document]))
            drawn[document] += some + (cut > 0)
            if cut:
                cuts[document] = cut
        left[group + 1] = max(0, rest - int(tokens[document]))
    return drawn, cuts


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


def _tokens(documents: Documents, copies: NDArray[np.integer]) -> _Counts:
    tokens: _Counts = np.multiply(documents.num_tokens, copies, dtype=np.int64)
    return tokens
