"""Matching and clustering of synthetic signatures: `python -m benchmarks.clusters [--json] [N …]`, 1 and 10 million.

Each N runs in a process of its own: signatures unit by unit (a third of the documents are copies, with a tenth of their
hashes changed, in clusters of up to some ten thousand), their records in files by bucket, then bucket by bucket
matched and reduced, then clustered. Seconds (CPU) without the making of random signatures; the most memory held at any
time; what was found against what was planted.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import ROOT, machine
from xgen.data.curate.cluster import components, reduce_edges
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
        for name in ("seconds", "peak_mb")
    }
    if options.json:
        print(json.dumps({"runs": runs, "growth": growth, "machine": machine()}, indent=2))
    else:
        print("growth, 1 being linear: " + "  ".join(f"{name} {value:.2f}" for name, value in growth.items()))


def _measure(num_documents: int) -> dict[str, float]:
    _warm()
    origin = _origins(num_documents)
    num_buckets = -(-num_documents * GEOMETRY.bands // BUCKET_RECORDS)
    seconds = dict.fromkeys(("records", "match", "cluster"), 0.0)
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache") as name:
        files = [Path(name, f"{bucket:05}").open("ab") for bucket in range(num_buckets)]  # noqa: SIM115
        for first in range(0, num_documents, UNIT):
            documents = np.arange(first, min(first + UNIT, num_documents), dtype=np.uint64)
            signed = _signatures(origin[documents], documents)
            began = time.process_time()
            records, offsets = by_bucket(band_records(signed, documents, GEOMETRY), num_buckets)
            for bucket, file in enumerate(files):
                records[offsets[bucket] : offsets[bucket + 1]].tofile(file)
            seconds["records"] += time.process_time() - began
        num_bytes = 0
        edges = []
        for file in files:
            file.close()
            began = time.process_time()
            records = np.fromfile(file.name, dtype=np.uint64).reshape(-1, RECORD_WORDS)
            edges.append(reduce_edges(match(records, GEOMETRY.max_differing).edges))
            seconds["match"] += time.process_time() - began
            num_bytes += records.nbytes
            Path(file.name).unlink()
    began = time.process_time()
    labels, _ = components(num_documents, edges)
    seconds["cluster"] = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    copies = origin != np.arange(num_documents)
    found = labels[copies] == labels[origin[copies]]
    wrong = labels[~copies] != np.flatnonzero(~copies)
    return {
        "documents": num_documents,
        "seconds": sum(seconds.values()),
        **seconds,
        "peak_mb": peak,
        "records_gb": num_bytes / 1e9,
        "largest": int(np.bincount(origin).max()),
        "copies_found": float(found.mean()),
        "others_joined": float(wrong.mean()),
    }


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
    components(10, [reduce_edges(match(records, 0).edges)])


if __name__ == "__main__":
    main()
