"""Thresholds of the filters, which are part of the spec of a curation. No kernel is imported here."""

from __future__ import annotations

from xgen.spec.filters import (
    C4,
    FineWeb,
    GopherQuality,
    GopherRepetition,
    Language,
    Lines,
    Pattern,
    Pii,
    Urls,
)

__all__ = [
    "C4",
    "FINEWEB",
    "FineWeb",
    "GopherQuality",
    "GopherRepetition",
    "Language",
    "Lines",
    "Pattern",
    "Pii",
    "Thresholds",
    "Urls",
]

Thresholds = GopherQuality | GopherRepetition | C4 | FineWeb | Language | Urls | Lines | Pii
# FineWeb's own chain and order (datatrove's examples/fineweb.py), after its lists of addresses and the language.
FINEWEB = (GopherRepetition(), GopherQuality(), C4(terminal_punctuation=False), FineWeb())
