"""The whole path on one NVIDIA GPU: submitted to the local executor, preempted, resumed; every attention and precision.

`pytest -m gpu tests/gpu`; without a GPU there is nothing to do. All runs are under way at once: they are small.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, xgen
from xgen.cluster import local
from xgen.runs import RunDir, read_events

pytestmark = pytest.mark.gpu

STEPS = 25
TIMEOUT = 420.0
PREEMPT_AT = 15
SPEC = {
    "kind": "pretrain",
    "name": "gpu",
    "resources": {"nodes": 1, "gpus_per_node": 1, "cpus_per_task": 4, "time": "30m", "partition": "preempt"},
    "lead": "60s",
    "model": {
        "name": "small", "dim": 512, "num_layers": 4, "num_heads": 8, "num_kv_heads": 4, "ffn_dim": 1536,
        "vocab_size": 4096,
    },
    "data": {"store": str(ROOT / ".cache/tiny-store")},
    "stages": [
        {
            "name": "only", "tokens": STEPS * 8192, "seq_len": 1024, "global_batch": 8192, "micro_batch": 4,
            "lr": {"peak": 1e-3, "warmup": 4},
        }
    ],
    "checkpoint": {"every": 10, "keep": 2},
    "deterministic": True,
    "seed": 1,
}  # fmt: skip
STAGES: dict[str, dict[str, Any]] = {
    "flex": {},
    "preempted": {},
    "compiled": {"compile": True},
    "checkpointed": {"activation_checkpointing": "full"},
    "selective": {"activation_checkpointing": "selective", "compile": True},
    "varlen": {"attention": "varlen"},
    "flash": {"attention": "flash"},
    "float8": {"precision": "float8", "compile": True},
}
SETUP = ("TRITON_", "TORCHINDUCTOR_", "PYTORCH_", "LD_LIBRARY_PATH", "CUDA_HOME")  # of whoever runs the tests
NEEDS = {"flash": "flash_attn", "float8": "torchao"}


@functools.cache
def gpu() -> bool:
    """Asked in another process: this one must not start CUDA."""
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunDir]]:
    """Every run by its name, at its end."""
    if not gpu():
        pytest.skip("no GPU is here")
    folder = tmp_path_factory.mktemp("gpu")
    profile = {
        "scheduler": "local", "run_root": str(folder / "runs"), "gpus": {"request": "none"},
        "partitions": {"preempt": {"preemptible": True, "grace": "60s"}},
        "container": {"runtime": "none", "python": sys.executable},
        "env": {"GLOO_SOCKET_IFNAME": "lo"} | {name: os.environ[name] for name in os.environ if name.startswith(SETUP)},
    }  # fmt: skip
    (folder / "box.yaml").write_text(yaml.safe_dump(profile))
    found: dict[str, RunDir] = {}
    try:
        for number, (name, keys) in enumerate(STAGES.items()):
            if name in NEEDS and find_spec(NEEDS[name]) is None:
                continue
            spec = SPEC | {"stages": [SPEC["stages"][0] | keys]}  # type: ignore[index]
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec))
            arguments = [str(folder / f"{name}.yaml"), "--cluster", str(folder / "box.yaml")]
            done = xgen("submit", *arguments, "--id", f"aaaaa{number}", "--json")
            assert done.returncode == 0, done.stderr
            found[name] = RunDir(Path(json.loads(done.stdout)["path"]))
        deadline = time.monotonic() + TIMEOUT
        told = False
        while any(local.is_alive(run) for run in found.values()):
            if not told and len(records(found["preempted"])) >= PREEMPT_AT:
                told = local.send(found["preempted"], signal.SIGUSR2)
            assert time.monotonic() < deadline, {name: tail(run) for name, run in found.items() if local.is_alive(run)}
            time.sleep(0.2)
        yield found
    finally:
        for run in found.values():
            local.send(run, signal.SIGTERM)


def records(run: RunDir) -> list[dict[str, Any]]:
    """Of every step, the last that was written of it."""
    try:
        lines = (run.metrics_dir / "steps.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    steps = {record["step"]: record for record in map(json.loads, lines)}
    return [steps[step] for step in sorted(steps)]


def losses(run: RunDir) -> list[float]:
    return [record["loss"] for record in records(run)]


def tail(run: RunDir) -> str:
    logs = sorted(run.attempts_dir.glob("*/err.log"))
    return logs[-1].read_text()[-1500:] if logs else "it never started"


def of(runs: dict[str, RunDir], name: str) -> RunDir:
    if name not in runs:
        pytest.skip(f"{NEEDS[name]} is not installed")
    run = runs[name]
    assert len(losses(run)) == STEPS, tail(run)
    assert [event.event for event in read_events(run)][-1] == "finished"
    return run


def test_a_preempted_run_ends_as_an_undisturbed_one_bit_for_bit(runs: dict[str, RunDir]) -> None:
    from xgen.train.compare import compare_checkpoints

    disturbed, other = of(runs, "preempted"), of(runs, "flex")
    assert disturbed.last_attempt() == 2
    assert [record["loss_hex"] for record in records(disturbed)] == [record["loss_hex"] for record in records(other)]
    folders = (run.checkpoints_dir / f"step-{STEPS}" for run in (disturbed, other))
    count, differing = compare_checkpoints(*folders)
    assert count > 50
    assert differing == []


@pytest.mark.parametrize("name", [name for name in STAGES if name != "flex"])
def test_every_way_reads_the_same_data(runs: dict[str, RunDir], name: str) -> None:
    assert [r["data"] for r in records(of(runs, name))] == [r["data"] for r in records(of(runs, "flex"))]


@pytest.mark.parametrize("name", [name for name in STAGES if name != "flex"])
def test_every_way_trains_as_flex_does(runs: dict[str, RunDir], name: str) -> None:
    """flex itself is held against float64 by benchmarks.gpu; a CPU begins with other random weights."""
    found, other = losses(of(runs, name)), losses(of(runs, "flex"))
    assert other[-1] < other[0] - 0.5  # it learns something
    apart = [abs(one - two) for one, two in zip(found, other, strict=True)]
    assert apart[0] < 0.01
    assert statistics.mean(apart) < (0.05 if name == "float8" else 0.01)


def test_checkpoints_are_written_while_it_trains(runs: dict[str, RunDir]) -> None:
    events = read_events(of(runs, "flex"))
    stalls = [event.stall for event in events if event.event == "checkpoint_durable"]
    assert len(stalls) >= 2
    assert all(stall is not None and stall < 10 for stall in stalls)
