"""The mixture for length extension: a fixed share of tokens from long documents, and no other bias.

Qwen2.5-1M (arXiv 2501.15383) trains on 40% of text at the new length and 60% shorter; ProLong (arXiv 2410.02660) on
60% long and 40% short. Only taking what is long would change what text is about, so the share of long text is raised in
each domain, whose weights stay (Fu et al., arXiv 2402.10171); and within the long and the short of a domain documents
are drawn without regard to length, so that either part keeps its distribution of lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from xgen.data.curate.balance import allot, weights_of
from xgen.data.curate.quotas import LongShare, Quota, Target
from xgen.data.errors import StoreError


def long_quotas(
    target: Target, long: LongShare, names: Sequence[str], num_documents: Sequence[int], supply: Sequence[int]
) -> tuple[Quota, ...]:
    """As `quotas_of`, with the tokens of each part, long and short, shared by the weights of `target`: of the long
    documents of the first domain, its short ones, the long ones of the second, …

    Where there is too little text of a domain in a part the other domains give more of that part; where they cannot,
    the other part does. Either is said by `unmet_of`.
    """
    place = f"mixture {target.name}"
    if not 0 < long.share < 1:
        raise StoreError(place, f"{long.share} is no share of long documents", "write more than 0 and less than 1")
    whole = {name: supply[2 * i] + supply[2 * i + 1] for i, name in enumerate(names)}
    weights = list(weights_of(target.balance, whole, place).values())
    caps = [int(target.epochs(names[group // 2]) * tokens) for group, tokens in enumerate(supply)]
    long_tokens = round(Fraction(str(long.share)) * target.num_tokens)
    parts = [long_tokens, target.num_tokens - long_tokens]
    given = [allot(weights, caps[part::2], parts[part]) for part in (0, 1)]
    for part in (0, 1):  # what the other part could not give
        if missing := parts[1 - part] - sum(given[1 - part]):
            given[part] = allot(weights, caps[part::2], parts[part] + missing)
    tokens = [given[group % 2][group // 2] for group in range(len(supply))]
    if not sum(tokens):
        raise StoreError(place, "has no text", "lower min_band, or raise max_epochs")
    return tuple(
        Quota(
            names[group // 2],
            ("long", "short")[group % 2],
            num_documents[group],
            supply[group],
            caps[group],
            round(weights[group // 2] * parts[group % 2]),
            tokens[group],
        )
        for group in range(len(supply))
    )
