"""What all parts of a spec share: unknown keys are errors, and errors name the nearest known word."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Strict(BaseModel):
    """Immutable; an unknown key is an error (`xgen.spec.load` adds the nearest known one)."""

    # defer_build: start-up builds what is used only
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a number; write one")
    return value


# YAML's `yes` is true, and pydantic takes true for 1.
Count = Annotated[int, BeforeValidator(_no_truth)]
Number = Annotated[float, BeforeValidator(_no_truth)]


def nearest(word: str, known: Iterable[str]) -> str:
    """`write X`, or `write one of …` when nothing is near."""
    import difflib  # only where a mistake was made

    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"write {close[0]}" if close else f"write one of {', '.join(words)}"
