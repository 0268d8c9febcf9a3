"""Runs in the peers' environment: python english.py TARGET. Writes what the splitter of English words has to know.

Read from spaCy (MIT licence, Explosion), whose English tokenizer datatrove's filters use, and from datatrove
(Apache-2.0): the classes of characters that their patterns name, evaluated over all of Unicode, the units of measure
and the exceptions. See xgen/data/curate/filters/characters.py for what each is.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from pathlib import Path

import spacy
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION
from spacy.lang.char_classes import (
    ALPHA,
    ALPHA_LOWER,
    ALPHA_UPPER,
    CONCAT_QUOTES,
    CURRENCY,
    LIST_ELLIPSES,
    LIST_ICONS,
    PUNCT,
    UNITS,
)
from spacy.pipeline import Sentencizer

CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]


def main() -> None:
    tokenizer = spacy.blank("en").tokenizer
    prefix, suffix = tokenizer.prefix_search, tokenizer.suffix_search
    classes = {
        "space": str.isspace,
        "letter": str.isalpha,
        "alpha": re.compile(f"[{ALPHA}]").match,
        "lower": re.compile(f"[{ALPHA_LOWER}]").match,
        "upper": re.compile(f"[{ALPHA_UPPER}]").match,
        "quote": re.compile(f"[{CONCAT_QUOTES}]").match,
        "prefix": lambda c: c != "+" and prefix(c),
        "suffix": suffix,
        "infix": re.compile("|".join(LIST_ELLIPSES[1:] + LIST_ICONS)).match,
        "before_full_stop": re.compile(rf"[0-9{ALPHA_LOWER}%²\-\+{PUNCT}(?:{CONCAT_QUOTES})]").match,
        "currency": re.compile(f"(?:{CURRENCY})$").match,
        "symbol": PUNCTUATION_SET.__contains__,
        "terminal": TERMINAL_PUNCTUATION.__contains__,
        "punctuation": lambda c: unicodedata.category(c).startswith("P"),
        "sentence_end": set(Sentencizer.default_punct_chars).__contains__,
        "word": re.compile(r"\w").match,
        "digit": re.compile(r"\d").match,
    }
    exceptions = {}
    for chunk, pieces in sorted(tokenizer.rules.items()):
        if not chunk.isspace():
            affixed = tokenizer.find_prefix(chunk) or tokenizer.find_infix(chunk) or tokenizer.find_suffix(chunk)
            exceptions[chunk] = [" ".join(piece[65] if 65 in piece else next(iter(piece.values())) for piece in pieces)]
            if affixed:
                exceptions[chunk].append(" ".join(_affixes(tokenizer, chunk)))
    tables = {
        "about": f"spaCy {spacy.__version__} (MIT), datatrove (Apache-2.0); made by benchmarks/peers/english.py",
        "classes": {name: ranges([ord(c) for c in CHARACTERS if holds(c)]) for name, holds in classes.items()},
        "units": sorted({unit for unit in UNITS.split("|") if unit}),
        "exceptions": exceptions,
    }
    Path(sys.argv[1]).write_text(json.dumps(tables, ensure_ascii=True, indent=0) + "\n")


def _affixes(tokenizer: spacy.tokenizer.Tokenizer, chunk: str) -> list[str]:
    """Tokens of an exception when the exceptions are not known: what the matcher of spaCy looks for."""
    bare = spacy.tokenizer.Tokenizer(
        tokenizer.vocab,
        rules={},
        prefix_search=tokenizer.prefix_search,
        suffix_search=tokenizer.suffix_search,
        infix_finditer=tokenizer.infix_finditer,
        url_match=tokenizer.url_match,
    )
    return [token.text for token in bare(chunk)]


def ranges(codes: list[int]) -> str:
    """`61-7a b5`: hexadecimal, both ends included."""
    found: list[list[int]] = []
    for code in codes:
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return " ".join(f"{a:x}" if a == b else f"{a:x}-{b:x}" for a, b in found)


if __name__ == "__main__":
    main()
