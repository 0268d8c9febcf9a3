"""Matching and clustering of synthetic signatures: `python -m benchmarks.clusters [--json] [N …]`, 1 and 10 million.

Each N runs in a process of its own: signatures unit by unit (a third of the documents are copies, with a tenth of their
hashes changed; the largest cluster holds some 3% of all), their records in files by bucket, then bucket by bucket
matched and clustered. Seconds of CPU without the making of random signatures, the kernel's for files and pages apart;
the most memory held at any time; what was found against what was planted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import ROOT, machine
from xgen.data.curate.cluster import components
from xgen.data.curate.match import RECORD_WORDS, band_records, by_bucket, match
from xgen.data.curate.minhash import Geometry

GEOMETRY = Geometry()
UNIT = 100_000  # documents
BUCKET_RECORDS = 3_000_000  # about; 120 MB
CHANGED = 0.1  # of the hashes of a copy: 0.81 of two copies' agree


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clusters", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("sizes", type=int, nargs="*", default=[1_000_000, 10_000_000], metavar="N")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_measure(options.one)))
        return
    runs = []
    for size in options.sizes:
        command = [sys.executable, "-m", "benchmarks.clusters", "--one", str(size)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
        runs.append(json.loads(done.stdout))
        if not options.json:
            print("  ".join(f"{name} {value:,.4g}" for name, value in runs[-1].items()))
    growth = {
        name: runs[-1][name] / runs[0][name] / (runs[-1]["documents"] / runs[0]["documents"])
        for name in ("seconds", "system", "peak_mb")
    }
    if options.json:
        print(json.dumps({"runs": runs, "growth": growth, "machine": machine()}, indent=2))
    else:
        print("growth, 1 being linear: " + "  ".join(f"{name} {value:.2f}" for name, value in growth.items()))


def _measure(num_documents: int) -> dict[str, float]:
    _warm()
    origin = _origins(num_documents)
    num_buckets = -(-num_documents * GEOMETRY.bands // BUCKET_RECORDS)
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache") as name:
        files = [Path(name, f"{bucket:05}") for bucket in range(num_buckets)]
        records_took, match_took = _Clock(), _Clock()
        with ExitStack() as stack:
            outputs = [stack.enter_context(file.open("ab")) for file in files]
            for first in range(0, num_documents, UNIT):
                documents = np.arange(first, min(first + UNIT, num_documents), dtype=np.uint64)
                signed = _signatures(origin[documents], documents)
                with records_took:
                    records, offsets = by_bucket(band_records(signed, documents, GEOMETRY), num_buckets)
                    for bucket, output in enumerate(outputs):
                        output.write(records[offsets[bucket] : offsets[bucket + 1]].data)
        num_bytes = sum(file.stat().st_size for file in files)
        with match_took:
            labels, _ = components(num_documents, _edges(files))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    copies = origin != np.arange(num_documents)
    found = labels[copies] == labels[origin[copies]]
    wrong = labels[~copies] != np.flatnonzero(~copies)
    return {
        "documents": num_documents,
        "seconds": records_took.user + match_took.user,
        "records": records_took.user,
        "match_and_cluster": match_took.user,
        "system": records_took.system + match_took.system,
        "peak_mb": peak,
        "records_gb": num_bytes / 1e9,
        "largest": int(np.bincount(origin).max()),
        "copies_found": float(found.mean()),
        "others_joined": float(wrong.mean()),
    }


class _Clock:
    """CPU time of what runs under it: the program's, and the kernel's (files, pages) apart."""

    def __init__(self) -> None:
        self.user = self.system = 0.0

    def __enter__(self) -> None:
        self._began = os.times()

    def __exit__(self, *_: object) -> None:
        now = os.times()
        self.user += now.user - self._began.user
        self.system += now.system - self._began.system


def _edges(files: list[Path]) -> Iterator[NDArray[np.uint64]]:
    """Bucket by bucket, read into the same memory."""
    buffer = np.empty(max(file.stat().st_size for file in files) // 8, dtype=np.uint64)
    for file in files:
        with file.open("rb") as source:
            size = source.readinto(buffer.data) // 8
        yield match(buffer[:size].reshape(-1, RECORD_WORDS), GEOMETRY.max_differing).edges
        file.unlink()


def _origins(num_documents: int) -> NDArray[np.int64]:
    """Of each document the lowest of its cluster: itself, or, for a third, one drawn so that few have very many."""
    rng = np.random.default_rng(1)
    origin = np.arange(num_documents)
    copies = np.flatnonzero(rng.random(num_documents) < 1 / 3)
    drawn = (copies * rng.random(len(copies)) ** 4).astype(np.int64)
    origin[copies] = drawn
    while (above := origin[origin] != origin).any():  # a copy of a copy has the same original
        origin[above] = origin[origin[above]]
    return origin


def _signatures(origin: NDArray[np.int64], documents: NDArray[np.uint64]) -> NDArray[np.uint32]:
    columns = np.arange(GEOMETRY.num_hashes, dtype=np.uint64)
    signed = _random(origin.astype(np.uint64)[:, None] << np.uint64(8) | columns)
    noise = _random(~(documents[:, None] << np.uint64(8) | columns))
    changed = (noise < np.uint32(CHANGED * 2**32)) & (origin.astype(np.uint64) != documents)[:, None]
    signed[changed] ^= noise[changed]
    return signed


def _random(values: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """SplitMix64's output function."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (values >> np.uint64(32)).astype(np.uint32)


def _warm() -> None:
    documents = np.arange(10, dtype=np.uint64)
    records = band_records(_signatures(np.zeros(10, dtype=np.int64), documents), documents, GEOMETRY)
    components(10, [match(records, 0).edges])


if __name__ == "__main__":
    main()
