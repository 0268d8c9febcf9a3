"""What evaluations do beside the model: `python -m benchmarks.records [--json] [--samples N]`.

The records of one checkpoint, by default 13 tasks x 7 lengths x 500 samples with answers of 500 characters: written one
by one as the samples are done, read by an attempt that goes on, made into scores. Seconds of this process, median of 3.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.common import ROOT, machine
from xgen.evals.protocol import Record
from xgen.evals.records import RecordWriter, num_records, read_records, step_folder
from xgen.evals.summary import summarize
from xgen.runs import RunDir
from xgen.spec.evaluate import RULER_TASKS

LENGTHS = [4096 << doubled for doubled in range(7)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.records", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--samples", type=int, default=500, metavar="N", help="of a task at a length (%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache") as folder:
        told = measure(RunDir(Path(folder)), options.samples) | {"machine": machine()}
    if options.json:
        print(json.dumps(told))
        return
    for name, value in told.items():
        print(f"{name:<12} {value:,.4g}" if isinstance(value, float | int) else f"{name:<12} {value}")


def measure(run: RunDir, samples: int) -> dict[str, float]:
    records = [
        Record(
            suite="ruler", task=task, length=length, index=index, score=index % 7 / 6, tokens=length, seconds=1.25,
            answer="An answer of 50 characters, some of which are é. \n" * 10, digest=f"{index:032x}",
        )
        for task in RULER_TASKS for length in LENGTHS for index in range(samples)
    ]  # fmt: skip
    folder = step_folder(run, 1)
    rounds = iter(range(9))

    def write() -> None:
        with RecordWriter(folder / f"{next(rounds)}.jsonl") as writer:
            for record in records:
                writer.append(record)

    write_s = _median(write)
    for path in sorted(folder.glob("*.jsonl"))[1:]:
        path.unlink()
    return {
        "records": len(records),
        "bytes": (folder / "0.jsonl").stat().st_size,
        "write_us": write_s / len(records) * 1e6,  # of each
        "count_s": _median(lambda: num_records(run, 0)),
        "read_s": _median(lambda: read_records(folder)),
        "scores_s": _median(lambda: summarize(records)),
    }


def _median(work: Callable[[], object]) -> float:
    """Seconds."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main()
