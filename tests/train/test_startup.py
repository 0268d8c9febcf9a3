"""The parts of a start, from the first moment of the process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.train.forked import SPEC
from xgen.runs import RunDir, StopFlag, TaskContext
from xgen.spec import Pretrain

# Sockets that a second group of 16 ranks opens on rank 0.
_GROUP = """
import os
import torch.distributed as dist
fds = lambda: [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
sockets = lambda: sum("socket:" in fd for fd in fds())
rank = next((rank for rank in range(1, 16) if os.fork() == 0), 0)
dist.init_process_group("gloo", rank=rank, world_size=16)
before = sockets()
group = dist.new_group(backend="gloo")
if rank == 0:
    print(sockets() - before)
dist.barrier(group=group)
dist.barrier()
"""
_MARKS = """
import json, time
time.sleep(0.3)
from xgen.train import startup
startup.mark("imports")
time.sleep(0.2)
print(json.dumps(startup.mark("build")))
"""


def test_the_parts_add_up_to_the_age_of_the_process() -> None:
    began = time.monotonic()
    said = subprocess.run([sys.executable, "-c", _MARKS], cwd=ROOT, capture_output=True, check=True, timeout=60).stdout
    age = time.monotonic() - began
    parts = json.loads(said)
    assert list(parts) == ["imports", "build"]
    assert parts["build"] == pytest.approx(0.2, abs=0.15)
    assert 0.5 < sum(parts.values()) < age + 0.02  # the kernel counts in hundredths


def test_a_rank_connects_to_those_it_talks_to_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from xgen.train import run

    told: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", os.environ | {"GLOO_SOCKET_IFNAME": "lo"})
    monkeypatch.setattr(run, "_train", lambda *_: told.update(os.environ))
    context = TaskContext(RunDir(tmp_path), 1, "1", 0, 0, 1, StopFlag(), None, 0)
    run.run_training(context, Pretrain.model_validate(SPEC))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    asked = subprocess.run([sys.executable, "-c", _GROUP], env=told, capture_output=True, check=True, timeout=120)
    assert int(asked.stdout) < 8
