"""Real text of this installation, beside which `xgen.data.curate.tiny.spam` is what nobody wants."""

from __future__ import annotations

import importlib.metadata
import random
from collections import defaultdict
from collections.abc import Sequence
from functools import cache

from xgen.data.curate.tiny.spam import SPAM, spam
from xgen.data.sources import tiny_sources

__all__ = ["SPAM", "halves", "real_texts", "sections", "spam"]


@cache
def real_texts() -> dict[str, list[str]]:
    """By domain: code, reference, literature, and web (what packages say of themselves to the world)."""
    texts: dict[str, list[str]] = defaultdict(list)
    for source in tiny_sources():
        for unit in source.units():
            try:
                read = [text for _, text in unit.read()]
            except (OSError, ValueError, SyntaxError):
                continue
            texts[source.domain] += (text for text in read if len(text) > 400)
    for package in sorted(importlib.metadata.distributions(), key=lambda found: found.name):
        text = str(package.metadata.get_payload())  # type: ignore[attr-defined]
        if len(text) > 400:
            texts["web"].append(text)
    return dict(texts)


def halves(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Every second document. Equal ones are on one side only."""
    unique = list(dict.fromkeys(texts))
    return unique[::2], unique[1::2]


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
