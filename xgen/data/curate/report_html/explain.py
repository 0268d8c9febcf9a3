"""What steps and rules ask, in words: those of filters are in the spec."""

from __future__ import annotations

import re

from pydantic import BaseModel

from xgen.drawing.wording import value
from xgen.spec.filters import C4, FineWeb, GopherQuality, GopherRepetition, Language, Pii, Urls

_FILTERS: dict[str, type[BaseModel]] = {
    "language": Language,
    "url": Urls,
    "gopher_repetition": GopherRepetition,
    "gopher_quality": GopherQuality,
    "c4": C4,
    "fineweb": FineWeb,
    "pii": Pii,
}
_STEPS = {
    "read": "Every record that could be read.",
    "ids": "Was a record with this id there before, in the same input?",
    "quality": "Does the fast model find it good enough?",
    "earlier": "Is it in a corpus that was curated before?",
    "exact": "Does a document before it have the same words?",
    "near": "Is a document before it nearly the same?",
    "lines": "Lines that a pattern of the spec names go, and documents that have too many of them.",
    "common_lines": "Lines go that many documents share.",
    "leaks": "Does it hold an item of an evaluation set?",
    "ensemble": "Does the second model, of several, find it good enough?",
}
_RULES = {
    "ids.there_before": "the first record with the id stays",
    "exact.duplicate": "the first of them stays, and counts how many there were",
    "near.duplicate": "the first of them stays, and counts how many there were",
    "earlier.duplicate": "the earlier corpus has it, or one like it",
    "common_lines.nothing_left": "all of its lines were cut",
    "quality.min_probability": "log-odds of being good, at least",
    "ensemble.min_probability": "log-odds of being good, at least",
    "language.languages": "languages that are wanted",
}
_MEASURED = {
    "quality": "log-odds {}",
    "ensemble": "log-odds {}",
    "exact": "{} documents in its cluster",
    "near": "{} documents in its cluster",
    "earlier": "{} documents in its cluster",
    "leaks": "{} runs of words that the item has",
}


_RUN = re.compile(r"max_(top|duplicate)_(\d+)_grams?")


def explain_step(name: str) -> str:
    if name in _FILTERS:
        return (_FILTERS[name].__doc__ or "").partition("\n")[0]
    return _STEPS.get(name, "")


def explain_rule(name: str) -> str:
    step, _, rule = name.partition(".")
    if name in _RULES:
        return _RULES[name]
    if found := _RUN.fullmatch(rule):
        what = "the most frequent run of {} words" if found[1] == "top" else "runs of {} words that came before"
        return f"share of characters in {what.format(found[2])}"
    field = _FILTERS[step].model_fields.get(rule) if step in _FILTERS else None
    return (field.description or "") if field else ""


def measured(step: str, number: float, bound: float | None) -> str:
    """What a rule measured of a document."""
    said = _MEASURED.get(step, "measured {}").format(value(number))
    return said if bound is None else f"{said}, threshold {value(bound)}"
