"""Run directories as submission, host and rank 0 write them, with events at times that a test says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.metrics.fake_slurm import FakeSlurm, Series, read_page
from xgen.metrics.exporter.page import render
from xgen.metrics.fleet import Runs
from xgen.metrics.slurm import Queue
from xgen.runs import RunDir
from xgen.spec import dump, load_job

PRETRAIN: dict[str, Any] = {
    "kind": "pretrain", "name": "tiny", "project": "ml", "model": "tiny", "data": {"store": "/stores/tiny"},
    "stages": [
        {
            "name": "broad", "tokens": 1_000_000, "seq_len": 1000, "global_batch": 10_000, "lr": {"peak": 1e-3},
            "resources": {"nodes": 2},
        },
        {"name": "anneal", "tokens": 200_000, "global_batch": 20_000, "lr": {}, "resources": {"nodes": 1}},
    ],
    "resources": {"gpus_per_node": 8, "time": "1h"},
}  # fmt: skip
COMMAND: dict[str, Any] = {
    "kind": "command", "name": "hello", "command": ["true"],
    "resources": {"partition": "cpu", "gpus_per_node": 0, "time": "1h"},
}  # fmt: skip


class FleetRun:
    """`told` appends an event to the file of its writer."""

    def __init__(self, run_root: Path, name: str, spec: dict[str, Any], *jobs: str) -> None:
        self.dir = RunDir(run_root / name)
        self.dir.create()
        (self.dir.path / "asked.yaml").write_text(yaml.safe_dump(spec))
        self.dir.spec_file.write_text(dump(load_job(self.dir.path / "asked.yaml").job))
        if jobs:
            self.dir.job_file(0).parent.mkdir()
            for stage, job in enumerate(jobs):
                self.dir.job_file(stage).write_text(f"{job}\n")

    def told(self, time: float, event: str, attempt: int = 1, writer: str = "", **facts: Any) -> None:
        known = {"submitted": "client", "queued": "client", "restore_end": "rank0", "first_step": "rank0"}
        known |= dict.fromkeys(("restore_begin", "progress", "guard", "stopping"), "rank0")
        writer = writer or known.get(event, "rank0" if event.startswith(("checkpoint", "validation")) else "host")
        record = {"time": time, "run": self.dir.name, "attempt": attempt, "job_id": "7", "event": event}
        self.write(writer, json.dumps(record | {"writer": writer} | facts, separators=(",", ":")) + "\n")

    def write(self, writer: str, text: str) -> None:
        with (self.dir.events_dir / f"{writer}.jsonl").open("a") as file:
            file.write(text)

    def trained(self, begin: float, steps: int, *, seconds: float = 5.0, attempt: int = 1, resumed: int = 0) -> float:
        """From the start of a job in that stage to its last step; a twentieth of each step waits for data."""
        self.told(begin, "started", attempt, nodes="n1", stage="broad")
        self.told(begin + 20, "restore_begin", attempt)
        self.told(begin + 30, "restore_end", attempt, step=resumed)
        now = begin + 40
        for step in range(resumed + 1, resumed + steps + 1):
            now += seconds
            event = "first_step" if step == resumed + 1 else "progress"
            waited = None if event == "first_step" else round((step - resumed - 1) * seconds / 20, 6)
            self.told(now, event, attempt, step=step, data_wait=waited)
        return now


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def polled(runs: Runs) -> Series:
    return read_page(render(runs.poll()).text.decode())


def fleet(root: Path, queue: Queue | None = None) -> Runs:
    return Runs(root, "atlas", "main", queue)


def says(slurm: FakeSlurm, *rows: str, user: str = "ann", queue: Queue | None = None) -> Queue:
    """A queue that has been asked (again), with jobs as `NUMBER STATE [REASON]`."""
    lines = []
    for row in rows:
        job, state, *reason = row.split()
        lines.append(f"{job}|{user}|ml|main|{state}|8|1795687000|cpu=8|{reason[0] if reason else 'None'}")
    slurm.say("squeue", "cat <<'EOF'\n" + "\n".join(lines) + "\nEOF" if lines else "true")
    queue = queue or Queue()
    list(queue.poll())
    return queue


def state(series: Series, run: str) -> list[str]:
    return [dict(labels)["state"] for name, labels in series if name == "xgen_run_state" and ("run", run) in labels]
