"""Real text of this installation, beside which `xgen.data.curate.tiny.spam` is what nobody wants."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence
from functools import cache

from xgen.data.curate.tiny.spam import SPAM, spam
from xgen.data.sources import tiny_sources

__all__ = ["SPAM", "halves", "real_texts", "sections", "spam"]


@cache
def real_texts() -> dict[str, list[str]]:
    """By domain: code, reference, literature."""
    texts: dict[str, list[str]] = defaultdict(list)
    for source in tiny_sources():
        for unit in source.units():
            try:
                read = [text for _, text in unit.read()]
            except (OSError, ValueError, SyntaxError):
                continue
            texts[source.domain] += (text for text in read if len(text) > 400)
    return dict(texts)


def halves(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """By each document's own text: equal ones are on one side, and another release of a package moves few."""
    sides: tuple[list[str], list[str]] = ([], [])
    for text in dict.fromkeys(texts):
        sides[hashlib.sha256(text.encode()).digest()[0] % 2].append(text)
    return sides


def sections(texts: Sequence[str], seed: int = 0, most: int = 6) -> list[str]:
    """Up to `most` sections of every document, of whole lines, as long as spam is: its length must not betray it."""
    rng = random.Random(seed)
    out = []
    for text in texts:
        lines, at = text.splitlines(keepends=True), 0
        for _ in range(most):
            at += rng.randrange(1 + len(lines) // 8)
            size, section = int(400 * 15 ** rng.random()), ""
            while at < len(lines) and len(section) < size:
                section += lines[at]
                at += 1
            if len(section) >= 400:
                out.append(section[: size + 200])
    return out
