"""Proof of what was consumed: a hash of samples that does not depend on their order or on who consumed them."""

from __future__ import annotations

import numpy as np
import xxhash

from xgen.data.samples import Batch

MODULUS = 1 << 64


def batch_digest(start: int, batch: Batch) -> int:
    """The sum, modulo 2^64, of the hashes of samples `start` and on.

    A sample's hash covers its number, its tokens and where its documents begin. Sums of ranks add up to the sum of
    all, and unlike XOR a sum also counts repeats.
    """
    total = 0
    for number, (tokens, positions) in enumerate(zip(batch.tokens, batch.positions, strict=True), start=start):
        content = xxhash.xxh3_64(number.to_bytes(8, "little"))
        content.update(tokens.astype("<i4", copy=False).tobytes())
        content.update(np.flatnonzero(positions == 0).astype("<i4").tobytes())
        total += content.intdigest()
    return total % MODULUS
