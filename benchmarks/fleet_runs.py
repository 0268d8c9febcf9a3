"""Thousands of run directories as a month of work leaves them, and what it costs to read them and to keep reading.

`python -m benchmarks.fleet_runs FOLDER` polls the runs of a folder that `make_runs` has filled, once from nothing and
then after each live run has written for 30 s more; it prints one JSON object.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

_SPEC: dict[str, Any] = {
    "kind": "pretrain", "name": "bench", "model": "xgen-4b", "data": {"store": "/stores/v1"},
    "stages": [
        {"name": "broad", "tokens": "1T", "seq_len": 4096, "global_batch": "4M tokens", "lr": {"peak": 3e-4}},
        {"name": "anneal", "tokens": "100B", "lr": {"shape": "linear"}},
    ],
    "resources": {"nodes": 16, "gpus_per_node": 8, "time": "24h"},
}  # fmt: skip
_EVERY = 5  # seconds between a training's progress events
# Of all runs: those that train, that wait, that ended this week, and before.
_LIVE, _WAITING, _RECENT = 0.2, 0.1, 0.5
_LATER = 5  # polls


def make_runs(run_root: Path, number: int, jobs: Sequence[str]) -> None:
    """`jobs`: numbers of jobs that run; as many runs as live need one each."""
    from xgen.spec import dump, load_job

    rng, now = random.Random(1), time.time()
    asked = run_root / "spec.yaml"
    asked.write_text(yaml.safe_dump(_SPEC))
    spec = dump(load_job(asked).job)
    asked.unlink()
    live = iter(jobs)
    for index in range(number):
        folder = run_root / f"bench-{index:06}"
        (folder / "events").mkdir(parents=True)
        (folder / "attempts" / "0001").mkdir(parents=True)
        (folder / "spec.yaml").write_text(spec)
        share = index / number
        if share < _LIVE:
            (folder / "jobs").mkdir()
            (folder / "jobs" / "0").write_text(f"{next(live)}\n")
            _train(folder, now - _EVERY * (steps := rng.randrange(1000, 7000)) - 1000, steps)
        elif share < _LIVE + _WAITING:
            _write(folder, "client", [_event(folder, now - rng.randrange(10**5), "submitted", 0)])
        else:
            days = rng.uniform(0, 6) if share < _LIVE + _WAITING + _RECENT else rng.uniform(8, 30)
            end = now - days * 86400
            _train(folder, end - _EVERY * (steps := rng.randrange(100, 1000)) - 1000, steps)
            _write(folder, "host", [_event(folder, end, "finished", 2)])


def _train(folder: Path, begin: float, steps: int) -> None:
    """Two attempts: after half of the steps the run is preempted."""
    _write(folder, "client", [_event(folder, begin - 600, "submitted", 0)])
    half = steps // 2
    host = [
        _event(folder, begin, "started", 1, stage="broad"),
        _event(folder, begin + 60 + _EVERY * half, "requeued", 1, reason="preempted"),
        _event(folder, begin + 900 + _EVERY * half, "started", 2, stage="broad"),
    ]
    _write(folder, "host", host)
    _write(folder, "rank0", _steps(folder, begin + 50, 1, 0, half))
    _write(folder, "rank0", _steps(folder, begin + 950 + _EVERY * half, 2, half - half % 100, steps))


def _steps(folder: Path, now: float, attempt: int, first: int, last: int) -> Iterator[str]:
    yield _event(folder, now - 20, "restore_end", attempt, step=first)
    for step in range(first + 1, last + 1):
        now += _EVERY
        facts = {"step": step, "tokens": step << 22, "data": "0123456789abcdef"}
        if step == first + 1:
            yield _event(folder, now, "first_step", attempt, step=step)
        else:
            yield _event(folder, now, "progress", attempt, data_wait=round(0.1 * (step - first), 3), **facts)
        if step % 100 == 0:
            yield _event(folder, now + 0.1, "checkpoint_begin", attempt, step=step)
            yield _event(folder, now + 2.1, "checkpoint_durable", attempt, step=step, seconds=2.0)


def _event(folder: Path, time: float, event: str, attempt: int, **facts: Any) -> str:
    record = {"time": round(time, 3), "run": folder.name, "attempt": attempt, "job_id": "7", "event": event}
    return json.dumps(record | {"writer": "rank0"} | facts, separators=(",", ":")) + "\n"


def _write(folder: Path, writer: str, lines: Iterator[str] | list[str]) -> None:
    with (folder / "events" / f"{writer}.jsonl").open("a") as file:
        file.writelines(lines)


def _go_on(run_root: Path) -> None:
    """What the live runs write between two polls."""
    for folder in run_root.iterdir():
        if (folder / "jobs").is_dir():
            with (folder / "events" / "rank0.jsonl").open("rb") as file:
                file.seek(-200, 2)
                last = json.loads(file.read().splitlines()[-1])
            step, now = last["step"], last["time"]
            facts = [{"step": step + n, "data_wait": 1e4 + n, "tokens": (step + n) << 22} for n in range(1, 7)]
            lines = [_event(folder, now + _EVERY * n, "progress", 2, **fact) for n, fact in enumerate(facts, start=1)]
            _write(folder, "rank0", lines)


def poll(run_root: Path) -> dict[str, Any]:
    """CPU seconds of each poll, with making it bytes, and what it served."""
    from xgen.metrics.exporter.page import render
    from xgen.metrics.fleet import Runs
    from xgen.metrics.slurm import Queue

    queue = Queue()
    list(queue.poll())
    runs = Runs(run_root, "bench", "main", queue)
    seconds, part = [], None
    for number in range(1 + _LATER):
        if number:
            _go_on(run_root)
        began = time.process_time()
        part = render(runs.poll())
        seconds.append(time.process_time() - began)
    assert part is not None
    states = dict(re.findall(r'xgen_run_directories\{state="(\w+)"\} (\S+)', part.text.decode()))
    return {"first": seconds[0], "later": seconds[1:], "series": part.num_series, "states": states}


if __name__ == "__main__":
    print(json.dumps(poll(Path(sys.argv[1]))))
