"""English words: of the package wonderwords (MIT), as NVIDIA's scripts; beyond them of web2 in english-words (MIT)."""

from __future__ import annotations

import string
from functools import cache
from importlib import resources

from xgen.data.errors import StoreError
from xgen.evals.ruler.draws import names, rng

_NEEDED = "RULER's words come from a package that is not installed", "pip install 'xgen[evals]'"


@cache
def listed(kind: str) -> tuple[str, ...]:
    """`noun`, `adjective` or `verb`. Raises StoreError when wonderwords is missing."""
    try:
        text = resources.files("wonderwords.assets").joinpath(f"{kind}list.txt").read_text(encoding="utf-8")
    except ModuleNotFoundError:
        raise StoreError("wonderwords", *_NEEDED) from None
    return tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


@cache
def common() -> tuple[str, ...]:
    """Some 8,000 nouns, adjectives and verbs, in a random order that is always the same."""
    return _shuffled(sorted({*listed("noun"), *listed("adjective"), *listed("verb")}))


@cache
def large() -> tuple[str, ...]:
    """65,536 words of web2. Raises StoreError when english-words is missing."""
    try:
        from english_words import get_english_words_set
    except ModuleNotFoundError:
        raise StoreError("english-words", *_NEEDED) from None
    return _shuffled(sorted(get_english_words_set(["web2"], lower=True, alpha=True)))[:65536]


@cache
def coded() -> tuple[str, ...]:
    """65,536 random words of six letters."""
    return tuple(names(rng("coded"), 6, 65536, string.ascii_lowercase))


def _shuffled(words: list[str]) -> tuple[str, ...]:
    return tuple(words[i] for i in rng("words").permutation(len(words)))
