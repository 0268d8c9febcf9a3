"""Proof of what was consumed: a hash of samples that does not depend on their order or on who consumed them."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_MODULUS = 1 << 64


def sample_digest(index: int, tokens: NDArray[np.integer]) -> int:
    """64 bits of one sample: its number and its tokens, whatever their type."""
    content = index.to_bytes(8, "little") + tokens.astype("<i4").tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def fold(total: int, index: int, tokens: NDArray[np.integer]) -> int:
    """`total` with one more sample. Totals of ranks add up modulo 2^64; a sum, unlike XOR, also counts repeats."""
    return (total + sample_digest(index, tokens)) % _MODULUS
