"""The exact plan: how many copies of each document a mixture has, so that its budget is met to the token.

The table of frequencies says how many copies a document has in one pass over its domain. The domain's quota is some
whole passes, and documents of one more in an order that their numbers fix, each with exactly the copies of the table,
until the quota is reached; the last one is cut. So apart from one document a domain, the number of copies is a
multiple of the table's.

Documents come part by part, twice: to be counted by hash, and for the few hashes among which a quota ends. What a plan
says is where each quota ends; of any documents alone `draw` finds their copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.longdocs import long_quotas
from xgen.data.curate.quotas import Quota, Target, quotas_of, unmet_of
from xgen.data.curate.spread import document_keys

_BUCKET_BITS = 16  # of hashes
_NUM_BUCKETS = 1 << _BUCKET_BITS


@dataclass(frozen=True)
class Documents:
    """Documents that are kept, as parallel arrays."""

    numbers: NDArray[np.uint64]
    num_tokens: NDArray[np.integer]  # with the end of text
    domains: NDArray[np.integer]  # in `domain_names`
    sources: NDArray[np.integer]
    bands: NDArray[np.integer]  # of quality; the highest is the best
    sizes: NDArray[np.integer]  # of clusters
    copies: NDArray[np.integer]  # of one pass (frequency.py)

    def __post_init__(self) -> None:
        assert len({len(array) for array in vars(self).values()}) == 1
        assert not len(self) or int(self.num_tokens.min()) > 0

    def __len__(self) -> int:
        return len(self.numbers)


# All documents in parts; given a rule of their numbers: at least those that it is true of.
Rule = Callable[[NDArray[np.uint64]], NDArray[np.bool_]]
Parts = Callable[[Rule | None], Iterable[Documents]]


@dataclass(frozen=True)
class End:
    """Where a group's quota is reached: after `passes` over all of it, and of one more the documents of lower hashes
    than `key`. The document of this hash gives `copies` more, the last of them only `cut` tokens (0: it is whole)."""

    passes: int = 0
    key: int = 0
    copies: int = 0
    cut: int = 0


@dataclass(frozen=True)
class Plan:
    """What each group gives, and where that ends."""

    target: Target
    seed: int
    quotas: tuple[Quota, ...]  # by group
    ends: tuple[End, ...]

    @property
    def num_tokens(self) -> int:
        return sum(quota.tokens for quota in self.quotas)

    @property
    def unmet(self) -> tuple[str, ...]:
        """What was wanted and is not there, and why."""
        return unmet_of(self.target, self.quotas)

    @property
    def weights(self) -> dict[str, int]:
        """For `data.mixtures` of a pretrain spec: a training of as many tokens sees each token of the store once."""
        tokens: dict[str, int] = {}
        for quota in self.quotas:
            tokens[quota.domain] = tokens.get(quota.domain, 0) + quota.tokens
        return {domain: number for domain, number in tokens.items() if number}


@dataclass(frozen=True)
class Drawn:
    """What a plan takes of some documents."""

    copies: NDArray[np.uint32]  # [documents]
    cuts: Mapping[int, int]  # by document (its place in the arrays): tokens of its last copy, if not all


def plan(parts: Parts, names: Sequence[str], target: Target, seed: int = 0) -> Plan:
    """The plan for `target`; `names` are those of the domains.

    What caps and lack of text leave of the budget is said in `unmet`. Raises StoreError for weights of unknown domains
    and a mixture without any text.
    """
    num_groups = len(names) * (2 if target.long else 1)
    num_documents = np.zeros(num_groups, dtype=np.int64)
    sums = np.zeros(num_groups << _BUCKET_BITS, dtype=np.int64)  # tokens of one pass by group and hash
    for documents in parts(None):
        groups = _groups(documents, target)
        rows = np.flatnonzero(groups >= 0)
        groups = groups[rows]
        num_documents += np.bincount(groups, minlength=num_groups)
        np.add.at(sums, groups << _BUCKET_BITS | _buckets(documents.numbers[rows], seed), _tokens(documents)[rows])
    by_hash = sums.reshape(num_groups, _NUM_BUCKETS)
    facts = (names, num_documents.tolist(), by_hash.sum(axis=1).tolist())
    quotas = long_quotas(target, target.long, *facts) if target.long else quotas_of(target, *facts)
    return Plan(target, seed, quotas, _ends(parts, target, seed, quotas, by_hash))


def draw(documents: Documents, target: Target, ends: Sequence[End], seed: int) -> Drawn:
    """Copies of each document by where the groups' quotas end."""
    groups = _groups(documents, target)
    keys = document_keys(documents.numbers, "draw", seed)
    passes = np.array([end.passes for end in ends], dtype=np.uint32)[groups]
    end_keys = np.array([end.key for end in ends], dtype=np.uint64)[groups]
    copies = documents.copies.astype(np.uint32)
    drawn = (passes + (keys < end_keys)) * copies
    drawn[groups < 0] = 0
    cuts = {}
    for document in np.flatnonzero((keys == end_keys) & (groups >= 0)).tolist():
        end = ends[int(groups[document])]
        drawn[document] += end.copies
        if end.cut:
            cuts[document] = end.cut
    return Drawn(drawn, cuts)


def _groups(documents: Documents, target: Target) -> NDArray[np.int64]:
    """Whose quota each document may fill: its domain's, or, where the long ones are apart, 2 * domain for these and
    2 * domain + 1 for the others; -1: none."""
    groups = documents.domains.astype(np.int64)
    if target.long:
        groups = 2 * groups + (documents.num_tokens < target.long.min_tokens)
    return np.where((documents.bands >= target.min_band) & (documents.copies > 0), groups, -1)


def _ends(
    parts: Parts, target: Target, seed: int, quotas: Sequence[Quota], by_hash: NDArray[np.int64]
) -> tuple[End, ...]:
    """Nothing but the documents of the one bucket of hashes in which a quota ends has to be sorted."""
    ends: list[End] = []
    open_: dict[int, tuple[int, int]] = {}  # by group: the bucket, and tokens that are wanted of it
    for group, quota in enumerate(quotas):
        passes, rest = divmod(quota.tokens, quota.supply) if quota.supply else (0, 0)
        bucket, before = 0, 0
        if rest:
            reached = np.cumsum(by_hash[group])
            bucket = int(np.searchsorted(reached, rest, side="right"))
            before = int(reached[bucket - 1]) if bucket else 0
        ends.append(End(passes, bucket << 64 - _BUCKET_BITS))
        if rest > before:
            open_[group] = (bucket, rest - before)
    if not open_:
        return tuple(ends)
    wanted = np.zeros(_NUM_BUCKETS, dtype=np.bool_)
    wanted[[bucket for bucket, _ in open_.values()]] = True
    bucket_of = np.array([open_.get(group, (-1, 0))[0] for group in range(len(quotas))])
    found: list[tuple[int, int, int, int]] = []  # hash, group, tokens, copies
    for documents in parts(lambda numbers: wanted[_buckets(numbers, seed)]):
        keys = document_keys(documents.numbers, "draw", seed)
        groups = _groups(documents, target)
        buckets = (keys >> np.uint64(64 - _BUCKET_BITS)).astype(np.int64)
        own = np.flatnonzero((groups >= 0) & (bucket_of[groups] == buckets))
        columns = (groups[own], documents.num_tokens[own], documents.copies[own])
        found += zip(keys[own].tolist(), *(column.tolist() for column in columns), strict=True)
    left = {group: tokens for group, (_, tokens) in open_.items()}
    for key, group, num_tokens, copies in sorted(found):
        if not left.get(group):
            continue
        if left[group] >= num_tokens * copies:
            left[group] -= num_tokens * copies
            ends[group] = End(ends[group].passes, key, copies)
        else:
            some, cut = divmod(left.pop(group), num_tokens)
            ends[group] = End(ends[group].passes, key, some + (cut > 0), cut)
    return tuple(ends)


def _buckets(numbers: NDArray[np.uint64], seed: int) -> NDArray[np.int64]:
    return (document_keys(numbers, "draw", seed) >> np.uint64(64 - _BUCKET_BITS)).astype(np.int64)


def _tokens(documents: Documents) -> NDArray[np.int64]:
    tokens: NDArray[np.int64] = np.multiply(documents.num_tokens, documents.copies, dtype=np.int64)
    return tokens
