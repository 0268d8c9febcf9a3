"""One file per run for Prometheus' file_sd, written when an attempt starts, removed when it ends in order.

An attempt that dies without a word leaves its file: the target stays, does not answer, and `up == 0` alarms.
"""

from __future__ import annotations

import json
from pathlib import Path

from xgen.runs import write_atomic


def write_target(file: Path, *, address: str, port: int, run: str, attempt: int, job_id: str) -> None:
    """Announce a run's exporter. The temporary name does not end in .json, so Prometheus never reads half a file."""
    file.parent.mkdir(exist_ok=True)
    host = f"[{address}]" if ":" in address else address
    labels = {"run": run, "attempt": str(attempt), "job_id": job_id}
    write_atomic(file, json.dumps([{"targets": [f"{host}:{port}"], "labels": labels}]) + "\n")


def remove_target(file: Path) -> None:
    file.unlink(missing_ok=True)
