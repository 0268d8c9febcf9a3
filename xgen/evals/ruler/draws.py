"""Random draws that depend on a sample's own numbers only: not on how many others there are, nor on who draws them."""

from __future__ import annotations

import math
import string
import uuid
import zlib

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def rng(*key: int | str) -> np.random.Generator:
    """The generator of `key`; numbers are not negative."""
    return np.random.default_rng([zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key])


def walk(random: np.random.Generator, size: int, steps: int) -> Indices:
    """`steps` different numbers below `size`, whose first ones do not depend on `steps`.

    An arithmetic walk around `size`: it costs what it yields, where a permutation costs `size`. What it walks over
    has to be in random order itself.
    """
    start, step = int(random.integers(size)), int(random.integers(1, max(2, size)))
    while math.gcd(step, size) > 1:
        step = step % size + 1
    return (start + step * np.arange(min(steps, size), dtype=np.int64)) % size


def positions(random: np.random.Generator, below: int, count: int) -> list[int]:
    """`count` different numbers below `below`, in order."""
    drawn: list[int] = sorted(random.choice(below, count, replace=False).tolist())
    return drawn


def number(random: np.random.Generator, digits: int = 7) -> str:
    return str(random.integers(10 ** (digits - 1), 10**digits))


def identifier(random: np.random.Generator) -> str:
    """A random UUID of version 4."""
    return str(uuid.UUID(bytes=random.bytes(16), version=4))


def letters(random: np.random.Generator, length: int, alphabet: str = string.ascii_uppercase) -> str:
    return "".join(alphabet[i] for i in random.integers(len(alphabet), size=length))


def names(random: np.random.Generator, length: int, count: int, alphabet: str = string.ascii_uppercase) -> list[str]:
    """`count` different words of `length` letters."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[letters(random, length, alphabet)] = None
    return list(found)
