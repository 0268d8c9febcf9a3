"""Processes that are measured in turns: each does a turn for every line that it gets, and says what it took."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT


def start(command: Sequence[str], log: Path) -> subprocess.Popen[str]:
    """What the process says beside its turns goes into `log`."""
    with log.open("w") as out:
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=out, text=True)


def turn(process: subprocess.Popen[str], log: Path) -> dict[str, Any]:
    """Have it do one turn. Raises SystemExit with the end of the log when it died."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("go\n")
    process.stdin.flush()
    while line := process.stdout.readline():
        if line.startswith("TURN "):
            found: dict[str, Any] = json.loads(line[5:])
            return found
    raise SystemExit(f"{log} ends, for its process died:\n{log.read_text()[-3000:]}")


def be_one_rank() -> None:
    """The environment of a training of one process, on one thread."""
    import torch

    os.environ |= {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    torch.set_num_threads(1)
