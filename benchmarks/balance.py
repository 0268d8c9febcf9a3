"""From rows of documents to a store, steps `balance`, `deal` and `shuffle`, on synthetic documents:
`python -m benchmarks.balance [--json] [--tokens MEAN] [N …]`, 1 and 10 million.

Units of a million documents of some 100 tokens, in 5 domains, a third of them in clusters; a mixture of four fifths
of all. Each step of each N runs in a process of its own: seconds of CPU, and the most memory it held at any time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow

from benchmarks.common import ROOT, machine, peak_memory
from xgen.data.build import build_tiny_store
from xgen.data.curate.spread import document_keys
from xgen.data.curate.steps import results
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.folders import published
from xgen.data.curate.steps.ledger import Ledger
from xgen.data.curate.steps.plan import read_plan
from xgen.data.curate.steps.run import run_step
from xgen.data.curate.steps.selected import TABLE
from xgen.data.curate.steps.tag import KEPT_FILE, ZSTD
from xgen.data.curate.tally import SIZE_BINS
from xgen.spec import Curate

UNIT = 1_000_000  # documents
DOMAINS = np.array([f"domain {number}" for number in range(5)])
SOURCES = np.array([f"source {number}" for number in range(40)])
MEASURED = ("balance", "deal", "shuffle")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.balance", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--tokens", type=int, default=100, metavar="MEAN", help="of a document (%(default)s)")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("sizes", type=int, nargs="*", default=[1_000_000, 10_000_000], metavar="N")
    options = parser.parse_args()
    if options.one:
        folder, size, step = options.one
        print(json.dumps(_measure(Path(folder), int(size), options.tokens, step)))
        return
    runs = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory(dir=ROOT / ".cache") as name:
            for step in ("select", *MEASURED):
                command = [sys.executable, "-m", "benchmarks.balance", "--one", name, str(size), step]
                command += ["--tokens", str(options.tokens)]
                done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
                if step in MEASURED:
                    runs.append({"documents": size, "step": step} | json.loads(done.stdout))
                    if not options.json:
                        print("  ".join(f"{key} {value}" for key, value in runs[-1].items()), flush=True)
    if options.json:
        print(json.dumps({"runs": runs, "machine": machine()}, indent=2))


def _measure(folder: Path, num_documents: int, mean: int, step: str) -> dict[str, float]:
    num_units = -(-num_documents // UNIT)
    job = Curate.model_validate(
        {
            "kind": "curate",
            "name": "balance",
            "out": str(folder / "out"),
            "inputs": [{"path": str(folder / f"{number:04}.jsonl")} for number in range(num_units)],
            "domains": {"rules": dict(zip(DOMAINS.tolist(), DOMAINS.tolist(), strict=True))},
            "tokenizer": str(folder / "store" / "tokenizer.json"),
            "frequency": "fineweb2",
            "mixtures": {"all": {"tokens": num_documents * mean * 8 // 10, "balance": {"temperature": 2}}},
            "resources": {"time": "1h"},
        }
    )
    if step == "select":
        build_tiny_store(folder / "store", vocab_size=512, max_bytes=200_000)
        for item in job.inputs:
            Path(item.path).write_text('{"text": ""}\n')
        run_step(job, "prepare")
        context = Context(job, Path(job.work_folder), read_plan(job))
        for number in range(num_units):
            _write_unit(context, number, min(UNIT, num_documents - number * UNIT), mean)
        return {}
    began = os.times()
    run_step(job, step)
    took = os.times()
    return {
        "user_seconds": round(took.user - began.user, 1),
        "system_seconds": round(took.system - began.system, 1),
        "peak_mb": round(peak_memory()),
    }


def _write_unit(context: Context, number: int, count: int, mean: int) -> None:
    """What `tag` and `select` leave of a unit."""
    tagged, selected = context.units_of("tag")[number], context.units_of("select")[number]
    with published(tagged.folder, tagged.recipe) as folder:
        ledger = Ledger()
        for domain in DOMAINS.tolist():
            ledger.keep("read", domain, 1)
        ledger.write(folder)
        np.save(folder / KEPT_FILE, np.ones(count, dtype=np.bool_))
    rng = np.random.default_rng(number)
    numbers = np.arange(count, dtype=np.uint64) + np.uint64(number * UNIT)
    lengths = rng.lognormal(np.log(mean) - 0.5, 1, count).astype(np.int64).clip(2, 100 * mean)
    sizes = np.where(rng.random(count) < 2 / 3, 1, rng.zipf(1.8, count).clip(2, 100_000)).astype(np.uint32)
    order = np.lexsort((document_keys(numbers, "spread", 0), np.searchsorted(SIZE_BINS, sizes, side="right")))
    begins = np.empty(count, dtype=np.int64)
    begins[order] = np.cumsum(lengths[order]) - lengths[order]
    source = rng.integers(0, len(SOURCES), count)
    columns = {
        "number": numbers, "domain": DOMAINS[source % len(DOMAINS)], "source": SOURCES[source],
        "licence": np.full(count, "unknown"), "language": np.full(count, ""),
        "score": rng.normal(size=count).astype(np.float32), "size": sizes, "bytes": lengths * 4, "num_tokens": lengths,
        "begin": begins,
    }  # fmt: skip
    with published(selected.folder, selected.recipe) as folder:
        with pyarrow.ipc.new_file(folder / results.TABLE_FILE, TABLE, options=ZSTD) as out:
            out.write_table(pyarrow.table(columns, schema=TABLE))
        rng.integers(0, 512, int(lengths.sum()), dtype=np.uint16).tofile(folder / results.TOKENS_FILE)
        Ledger().write(folder)


if __name__ == "__main__":
    main()
