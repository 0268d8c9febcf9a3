"""Near duplicates beside other tools: `python -m benchmarks.dedup [--json] [--rounds N] [--copies N]`.

Speed: the same 4 MB of real text (modules, documentation, plays), from strings to signatures and keys, in CPU time of
one thread; rounds in turn. Found: real passages of which each has one edited copy, with the exact similarity of the
pair, between documents that only share a page (`benchmarks.planted`); recall by bin and precision of each tool at its
settings for 0.75. The peers (datatrove, rensa, text-dedup) run in an environment that this makes in .cache/bench.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import ROOT, Figure, Result, peer_python
from benchmarks.planted import Planted, make_planted
from xgen.data.curate.cluster import components
from xgen.data.curate.exact import exact_hash, first_equal
from xgen.data.curate.match import band_records, match
from xgen.data.curate.minhash import Geometry, signatures
from xgen.data.curate.texts import Texts
from xgen.data.documents import read_documents

PEERS = ("rensa", "text-dedup", "datatrove")
PACKAGES = ("datatrove[processing]==0.10.1", "orjson", "spacy", "rensa==0.5.0", "text-dedup==0.4.0")
SPEED_BYTES = 4_000_000
GEOMETRY = Geometry()


@dataclass(frozen=True)
class DedupResult(Result):
    """`recall` and `precision` of each tool."""

    recall: Mapping[str, Mapping[str, float]]
    precision: Mapping[str, float]
    exact_missed: int

    @property
    def met(self) -> dict[str, bool]:
        ours, others = self.recall["ours"], [self.recall[peer] for peer in PEERS]
        return super().met | {
            "recall of the best peer in every bin": all(
                share >= max(other[name] for other in others) for name, share in ours.items()
            ),
            "recall 0.99 above 0.8": min(ours["same"], ours["0.9-1"], ours["0.8-0.9"]) >= 0.99,
            "precision 0.999": self.precision["ours"] >= 0.999,
            "exact duplicates all found": self.exact_missed == 0,
        }

    def print(self, as_json: bool) -> None:
        super().print(as_json)
        if as_json:
            return
        print(f"{'recall':<12}" + "".join(f"{name:>10}" for name in self.recall["ours"]) + "  precision")
        for tool, recall in self.recall.items():
            print(f"{tool:<12}" + "".join(f"{share:>10.3f}" for share in recall.values()), end="")
            print(f"{self.precision[tool]:>11.4f}")
        for goal, met in self.met.items():
            print(f"{goal}: {'met' if met else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dedup", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=250, help="planted in each bin of similarity")
    options = parser.parse_args()
    python = curation_peers()
    rates: dict[str, list[float]] = defaultdict(list)
    recall, precision = {}, {}
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache") as name:
        folder = Path(name)
        texts = _real_texts()
        num_bytes = sum(len(text.encode()) for text in texts)
        sign(texts[:3])  # compiles
        for _ in range(options.rounds):
            began = time.process_time()
            sign(texts)
            rates["ours"].append(num_bytes / (time.process_time() - began) / 1e6)
            for peer in PEERS:
                rates[peer].append(num_bytes / _peer(python, peer, "sign", texts, folder).seconds / 1e6)
        planted = make_planted(options.copies)
        removed = {"ours": find(planted.texts)}
        removed |= {peer: set(_peer(python, peer, "find", planted.texts, folder).removed) for peer in PEERS}
        for tool, numbers in removed.items():
            recall[tool], precision[tool] = planted.recall(numbers), planted.precision(numbers)
    others = {peer: Figure.of(rates[peer], "MB/s") for peer in PEERS}
    goal = max(25.0, 2 * others["rensa"].median, 30 * others["datatrove"].median)
    figures = {"signatures": Figure.of(rates["ours"], "MB/s")}
    missed = _exact_missed(planted)
    DedupResult("dedup", figures, others, {"signatures": goal}, recall, precision, missed).print(options.json)


def sign(texts: list[str]) -> NDArray[np.uint64]:
    """From strings to what is written for matching."""
    documents = np.arange(len(texts), dtype=np.uint64)
    return band_records(signatures(Texts.of(texts), GEOMETRY), documents, GEOMETRY)


def find(texts: list[str]) -> set[int]:
    labels = components(len(texts), [match(sign(texts), GEOMETRY.max_differing).edges])
    return set(np.flatnonzero(labels != np.arange(len(texts), dtype=np.uint64)).tolist())


def _exact_missed(planted: Planted) -> int:
    """Copies in other case and punctuation that do not fall together with their originals."""
    same = [pair for pair in planted.pairs if pair.similarity == 1.0]
    texts = list(planted.texts)
    for pair in same:
        texts[pair.copy] = texts[pair.copy].upper().replace(" ", " , ").replace("\n", "\r\n\n")
    first = first_equal(exact_hash(Texts.of(texts)))
    return sum(int(first[pair.copy]) != pair.original for pair in same)


def _real_texts() -> list[str]:
    """Documents of the tiny corpus, a few of each domain in turn, up to 4 MB."""
    files = sorted((ROOT / ".cache/tiny-store/corpus").glob("*.jsonl.zst"))
    texts: list[str] = []
    size = 0
    for together in zip(*(list(read_documents(file)) for file in files), strict=False):
        for document in together:
            if size < SPEED_BYTES:
                texts.append(document.text)
                size += len(document.text.encode())
    return texts


@dataclass(frozen=True)
class _Took:
    seconds: float
    removed: tuple[int, ...]


def _peer(python: Path, name: str, what: str, texts: list[str], folder: Path) -> _Took:
    """One tool in a process of its own, on one thread, with an empty folder."""
    place = folder / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / "texts.json").write_text(json.dumps(texts))
    env = os.environ | {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [str(python), str(ROOT / "benchmarks/peers/dedup.py"), name, what, str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, cwd=place, env=env)
    if done.returncode:
        sys.exit(f"{name} {what} failed:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    return _Took(result["seconds"], tuple(result["removed"] or ()))


def curation_peers() -> Path:
    return peer_python("dedup", PACKAGES, "some 5 min, 1.7 GB")


if __name__ == "__main__":
    main()
