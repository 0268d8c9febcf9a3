"""What all parts of a spec share: unknown keys are errors, and errors name the nearest known word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Immutable; an unknown key is an error (`xgen.spec.load` adds the nearest known one)."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)  # start-up: build what is used


def nearest(word: str, known: Iterable[str]) -> str:
    """`write X`, or `write one of …` when nothing is near."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"write {close[0]}" if close else f"write one of {', '.join(words)}"
