"""Plain values as JSON, exactly, and nothing that could run code when it is read."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

_LONG = 1 << 63
# What is written in a tag with its members, by its base classes too: a Counter arrives as a dict, which it equals.
_GROUPS: tuple[tuple[str, type, Callable[[Any], Any]], ...] = (
    ("l", list, list), ("t", tuple, tuple), ("s", set, set), ("f", frozenset, frozenset), ("q", deque, deque),
)  # fmt: skip
_TEXTS: tuple[tuple[str, type, Callable[[Any], str], Callable[[str], Any]], ...] = (
    ("b", bytes, bytes.hex, bytes.fromhex),
    ("B", bytearray, bytearray.hex, bytearray.fromhex),
    ("F", Fraction, str, Fraction),
    ("D", Decimal, str, Decimal),
    ("T", datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    ("Y", datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
)


class Encoder:
    """`handle` numbers what is no plain value: (number, whether it is the other end's)."""

    def __init__(self, handle: Callable[[Any], tuple[int, bool]]) -> None:
        self._handle = handle

    def encode(self, value: Any) -> Any:
        """Raises RecursionError."""
        if value is None or isinstance(value, bool | str):
            return value if value is None or type(value) in (bool, str) else str.__str__(value)
        if isinstance(value, int):
            return int(value) if -_LONG < value < _LONG else {"i": hex(value)}
        if isinstance(value, float):
            return float(value)
        if isinstance(value, complex):
            return {"c": [value.real, value.imag]}
        if isinstance(value, range):
            return {"r": [value.start, value.stop, value.step]}
        if isinstance(value, dict):
            return {"d": [[self.encode(key), self.encode(item)] for key, item in dict.items(value)]}
        for tag, kind, _ in _GROUPS:
            if isinstance(value, kind):
                return {tag: [self.encode(item) for item in kind.__iter__(value)]}  # type: ignore[attr-defined]
        for tag, kind, write, _ in _TEXTS:
            if isinstance(value, kind):
                return {tag: write(value)}
        number, is_theirs = self._handle(value)
        return {"o" if is_theirs else "h": number}


class Decoder:
    """`held`: the object of a number, and whether it is this end's."""

    def __init__(self, held: Callable[[int, bool], Any]) -> None:
        self._held = held

    def decode(self, value: Any) -> Any:
        """Raises ValueError, TypeError, LookupError, RecursionError for what `encode` does not write."""
        if not isinstance(value, dict):
            if isinstance(value, list):
                raise TypeError("a bare list")
            return value
        ((tag, said),) = value.items()
        if tag in "oh":
            return self._held(int(said), tag == "o")
        if tag == "i":
            return int(said, 16)
        if tag == "c":
            return complex(*said)
        if tag == "r":
            return range(*said)
        if tag == "d":
            return {self.decode(key): self.decode(item) for key, item in said}
        for own, _, make in _GROUPS:
            if tag == own:
                return make(map(self.decode, said))
        return next(read for own, _, _, read in _TEXTS if tag == own)(said)
