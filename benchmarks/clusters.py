"""Matching and clustering of synthetic signatures: `python -m benchmarks.clusters [--json] [N …]`, 1 and 10 million.

Each N runs in a process of its own: signatures unit by unit (a third of the documents are copies, with a tenth of their
hashes changed; the largest cluster holds some 3% of all), their records in files by bucket, which are matched one by
one; then the step `cluster`, again in a process of its own. Seconds of CPU without the making of random signatures, the
kernel's for files and pages apart; the most memory held at any time, and `cluster_bytes` a document by which the memory
of `cluster` grew; what was found against what was planted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import ROOT, machine, peak_memory
from xgen.data.curate.cluster import Clusters, reduce_edges
from xgen.data.curate.match import RECORD_WORDS, band_records, by_bucket, match
from xgen.data.curate.minhash import Geometry
from xgen.data.curate.steps import results
from xgen.data.curate.steps.base import Context, Item
from xgen.data.curate.steps.cluster import Cluster
from xgen.data.curate.steps.folders import published
from xgen.data.curate.steps.ledger import Ledger
from xgen.data.curate.steps.plan import VERSION, CuratePlan, PlannedUnit
from xgen.data.curate.steps.tag import KEPT_FILE
from xgen.spec.curate import Curate

GEOMETRY = Geometry()
UNIT = 100_000  # documents
BUCKET_RECORDS = 3_000_000  # about; 120 MB
CHANGED = 0.1  # of the hashes of a copy: 0.81 of two copies' agree


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clusters", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--cluster", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("sizes", type=int, nargs="*", default=[1_000_000, 10_000_000], metavar="N")
    options = parser.parse_args()
    if options.cluster:
        print(json.dumps(_cluster(options.cluster, options.one)))
        return
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
        context = _context(Path(name), num_documents, num_buckets)
        files = [Path(name, f"{bucket:05}") for bucket in range(num_buckets)]
        records_took, match_took = _Clock(), _Clock()
        with ExitStack() as stack:
            outputs = [stack.enter_context(file.open("ab")) for file in files]
            for unit in context.units_of("tag"):
                first = int(unit.name) * UNIT
                documents = np.arange(first, min(first + UNIT, num_documents), dtype=np.uint64)
                signed = _signatures(origin[documents], documents)
                with published(unit.folder, unit.recipe) as folder:
                    np.save(folder / KEPT_FILE, np.ones(len(documents), dtype=np.bool_))
                    Ledger().write(folder)
                with records_took:
                    records, offsets = by_bucket(band_records(signed, documents, GEOMETRY), num_buckets)
                    for bucket, output in enumerate(outputs):
                        output.write(records[offsets[bucket] : offsets[bucket + 1]].data)
        num_bytes = sum(file.stat().st_size for file in files)
        with match_took:
            for item, edges in zip(_buckets(context), _edges(files), strict=True):
                with published(item.folder, item.recipe) as folder:
                    np.save(folder / results.EDGES_FILE, reduce_edges(edges))
                    for file in (results.EXACT_FILE, results.IDS_FILE):
                        np.save(folder / file, np.zeros(0, dtype=np.uint64))
        peak = peak_memory()
        command = [sys.executable, "-m", "benchmarks.clusters", "--one", str(num_documents), "--cluster", name]
        clustered = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
        labels = np.load(Path(name, "out", results.LABEL_FILE))
    copies = origin != np.arange(num_documents)
    found = labels[copies] == labels[origin[copies]]
    wrong = labels[~copies] != np.flatnonzero(~copies)
    return {
        "documents": num_documents,
        "seconds": records_took.user + match_took.user + clustered["user"],
        "records": records_took.user,
        "match": match_took.user,
        "cluster": clustered["user"],
        "system": records_took.system + match_took.system + clustered["system"],
        "peak_mb": max(peak, clustered["peak"]),
        "cluster_bytes": clustered["more"] * 2**20 / num_documents,
        "records_gb": num_bytes / 1e9,
        "largest": int(np.bincount(origin).max()),
        "copies_found": float(found.mean()),
        "others_joined": float(wrong.mean()),
    }


def _cluster(work: Path, num_documents: int) -> dict[str, float]:
    """The step alone, in this process."""
    _warm()
    step = Cluster(_context(work, num_documents, -(-num_documents * GEOMETRY.bands // BUCKET_RECORDS)))
    (work / "out").mkdir()
    before, took = peak_memory(), _Clock()
    with took:
        step.write(step.items()[0], work / "out", lambda _: None)
    peak = peak_memory()
    return {"user": took.user, "system": took.system, "peak": peak, "more": peak - before}


def _context(work: Path, num_documents: int, num_buckets: int) -> Context:
    """Of a spec that names nothing that is there: what `match` would have written is in `work`."""
    job = Curate.model_validate(
        {
            "kind": "curate", "name": "clusters", "out": str(work / "none"), "work": str(work),
            "inputs": [{"path": "none"}], "tokenizer": "none", "mixtures": {"none": {"tokens": 1}},
            "resources": {"time": "1h"},
        }
    )  # fmt: skip
    units = tuple(
        PlannedUnit(number=number, input=0, pieces=(), name=str(number)) for number in range(-(-num_documents // UNIT))
    )
    facts = dict.fromkeys(("lists", "tokenizer", "evaluation"), "")
    plan = CuratePlan(
        version=VERSION, spec="", units=units, inputs=(), num_buckets=num_buckets, models={}, files={}, facts=facts
    )
    return Context(job, work, plan)


def _buckets(context: Context) -> list[Item]:
    return context.buckets_of("match", context.recipes["match"])


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
    clusters = Clusters(0, 10, [match(records, 0).edges])
    clusters.choose()
    clusters.rows(0, 10)


if __name__ == "__main__":
    main()
