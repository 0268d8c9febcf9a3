"""The weights that the servers are to have: folders in RUN/weights, and a file that says which of them counts.

A folder is as transformers reads it, under a name that no other has: a trainer that goes back to an older checkpoint
writes its step anew. Its tokenizer knows the numbers of the tokens as words, `17 4 95`: the servers see no text, what
comes back are tokens exactly, and no server needs to know the tokenizer of the prompts.
"""

from __future__ import annotations

import re
from pathlib import Path

from xgen.runs import RunDir, write_atomic

_NAME = re.compile(r"v(\d+)-[0-9a-f]+")


def weights_dir(run: RunDir) -> Path:
    return run.path / "weights"


def version_of(name: str | None) -> int | None:
    """Of a folder's name; None for a name that is no version's."""
    found = _NAME.fullmatch(name or "")
    return int(found[1]) if found else None


def current(run: RunDir) -> str | None:
    """Name of the folder that counts; None before the first, and when it cannot be read just now."""
    try:
        name = (weights_dir(run) / "current").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return name if version_of(name) is not None else None


def point_to(run: RunDir, name: str) -> None:
    write_atomic(weights_dir(run) / "current", name + "\n")


def as_words(tokens: tuple[int, ...]) -> str:
    """Tokens in the language of the folder's tokenizer."""
    return " ".join(map(str, tokens))


def from_words(text: str) -> list[int]:
    """The inverse. Raises ValueError for what is no such text."""
    return [int(word) for word in text.split()]
