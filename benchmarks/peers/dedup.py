"""One tool for near duplicates in a process of its own: `python dedup.py NAME sign|find FOLDER`. Prints JSON.

Runs in the peers' environment, which has nothing of xgen. FOLDER/texts.json is a list of strings. `sign` is the CPU
time from strings to signatures; `find` the documents that the tool removes, at its usual settings for a threshold of
0.75 (datatrove: 14 bands of 8, whose threshold is 0.72).
"""

from __future__ import annotations

import json
import re
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

THRESHOLD, NUM_PERM, NGRAM = 0.75, 128, 5
_WORD = re.compile(r"\w+")


def shingles(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    return [" ".join(words[at : at + NGRAM]) for at in range(max(len(words) - NGRAM + 1, 1))]


class Rensa:
    def sign(self, texts: list[str], _: Path) -> None:
        from rensa import RMinHash

        for at in range(0, len(texts), 256):
            RMinHash.digest_matrix_from_token_sets(map(shingles, texts[at : at + 256]), NUM_PERM, 42)

    def find(self, texts: list[str], _: Path) -> list[int]:
        from rensa import RMinHashDeduplicator

        dedup = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=NUM_PERM, use_lsh=True)
        kept = dedup.add_pairs((str(number), shingles(text)) for number, text in enumerate(texts))
        return [number for number, keep in enumerate(kept) if not keep]


class TextDedup:
    """Its `embed_func` and its tables, as its `main` calls them, without the files of `datasets` between."""

    def __init__(self) -> None:
        import numpy as np
        from text_dedup import minhash

        bands, rows = minhash.optimal_param(THRESHOLD, NUM_PERM, 0.5, 0.5)
        prime = np.uint64((1 << 61) - 1)
        permutations = tuple(minhash.RNG.randint(low, prime, size=(NUM_PERM,), dtype=np.uint64) for low in (1, 0))
        self.embed: Callable[[str, int], dict[str, Any]] = partial(
            minhash.embed_func,
            num_perm=NUM_PERM,
            ngram_size=NGRAM,
            min_length=NGRAM,
            hashranges=[(band * rows, (band + 1) * rows) for band in range(bands)],
            permutations=permutations,
            hash_func=partial(minhash.sha1_hash, d=32),
            dtype=np.uint64,
            max_hash=np.uint32((1 << 32) - 1),
            modulo_prime=prime,
        )

    def sign(self, texts: list[str], _: Path) -> None:
        for number, text in enumerate(texts):
            self.embed(text, number)

    def find(self, texts: list[str], _: Path) -> list[int]:
        from text_dedup.minhash import SIGNATURE_COLUMN
        from text_dedup.utils import UnionFind

        found, first = UnionFind(), dict[tuple[int, bytes], int]()
        for number, text in enumerate(texts):
            for band, key in enumerate(self.embed(text, number)[SIGNATURE_COLUMN]):
                found.union(number, first.setdefault((band, key), number))
        return [number for number in range(len(texts)) if found.find(number) != number]


class Datatrove:
    def sign(self, texts: list[str], folder: Path) -> None:
        from datatrove.data import Document
        from datatrove.pipeline.dedup import MinhashDedupSignature

        step = MinhashDedupSignature(str(folder / "signatures"))
        step.run(Document(text=text, id=str(number)) for number, text in enumerate(texts))

    def find(self, texts: list[str], folder: Path) -> list[int]:
        from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster

        self.sign(texts, folder)
        for bucket in range(14):
            MinhashDedupBuckets(str(folder / "signatures"), str(folder / "pairs")).run(rank=bucket, world_size=14)
        MinhashDedupCluster(str(folder / "pairs"), str(folder / "removed")).run()
        return [number for (number,) in struct.iter_unpack("<I", (folder / "removed/000000.remove").read_bytes())]


TOOLS: dict[str, type[Rensa] | type[TextDedup] | type[Datatrove]] = {
    "rensa": Rensa,
    "text-dedup": TextDedup,
    "datatrove": Datatrove,
}


def main() -> None:
    name, what, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    texts = json.loads((folder / "texts.json").read_bytes())
    tool = TOOLS[name]()
    tool.sign(texts[:3], folder / "warm")  # what it imports or loads on its first call
    began = time.process_time()
    removed = getattr(tool, what)(texts, folder / "cold")
    print(json.dumps({"seconds": time.process_time() - began, "removed": removed}))


if __name__ == "__main__":
    main()
