"""The trainer itself on one GPU: `python -m benchmarks.gpu_train [--json] [--case NAME] [--steps N]`.

`JobTrainer` trains slices of the 4B and the 9B, whole layers and the whole vocabulary, as `jobs/4b` and `jobs/9b`
would on one rank of many: loader, guard, proof, events and exporter are in the steps that are timed. It prints
tokens/s, model FLOP/s utilisation, peak memory by CUDA's allocator beside that of `xgen plan`, and the loss, which must
be finite and fall below that of the first step. Attention is left out of the FLOPs: the documents of the store are
shorter than the sequences, and what they do not see of one another is not computed. Every case is a process of its
own; all import at once, and then take turns on the GPU. A case that needs what is not installed is said and left out.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import ROOT, Figure, Result
from benchmarks.gpu import PEAK

WARM_UP = 3  # steps: they compile, and give the allocator its blocks
TIMEOUT = 600.0
_4K = {"seq_len": 4096, "activation_checkpointing": "selective", "compile": True}
_32K = _4K | {"seq_len": 32768, "activation_checkpointing": "full"}
_128K = _32K | {"seq_len": 131072}
# model, layers (0: all), sequences a step, the stage's own keys
CASES: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "4b, 4k, flex": ("xgen-4b", 0, 4, _4K),
    "9b 8 layers, 4k, flex": ("xgen-9b", 8, 8, _4K),
    "9b 8 layers, 4k, flex, eager": ("xgen-9b", 8, 8, _4K | {"compile": False}),
    "9b 8 layers, 4k, varlen": ("xgen-9b", 8, 8, _4K | {"attention": "varlen"}),
    "9b 8 layers, 4k, flash": ("xgen-9b", 8, 8, _4K | {"attention": "flash"}),
    "9b 8 layers, 4k, float8": ("xgen-9b", 8, 8, _4K | {"precision": "float8"}),
    "9b 8 layers, 32k, flex": ("xgen-9b", 8, 1, _32K),
    "9b 8 layers, 128k, flex": ("xgen-9b", 8, 1, _128K),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_train", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--case", choices=CASES, action="append", help="may be repeated; default: all")
    parser.add_argument("--steps", type=int, default=8, help="that are timed (default: %(default)s)")
    parser.add_argument("--store", type=Path, default=ROOT / ".cache/tiny-store", help="token store to train on")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        _train(options.run, options.steps, options.store)
        return
    figures: dict[str, Figure] = {}
    goals: dict[str, float] = {}
    arguments = ["--steps", str(options.steps), "--store", str(options.store)]
    with tempfile.TemporaryDirectory(prefix="xgen-gpu-", dir=ROOT / ".cache") as scratch:
        waiting = {case: _start(case, arguments, Path(scratch)) for case in options.case or CASES}
        try:
            for case, process in waiting.items():
                found = _measure(case, process, Path(scratch))
                if found is None:
                    continue
                name = found["gpu"]
                peak = next((flops for key, flops in PEAK.items() if key in name), math.nan)
                rates = found["rates"]
                figures[case] = Figure.of(rates, "tokens/s")
                print(f"{case}: {figures[case]}", file=sys.stderr, flush=True)
                used = [100 * rate * found["flops"] / peak for rate in rates]
                figures[f"{case}: MFU without attention"] = Figure.of(used, "%")
                figures[f"{case}: peak"] = Figure.of([found["peak"] / 2**30], "GiB")
                figures[f"{case}: peak over the plan's"] = Figure.of([found["peak"] / found["planned"]], "x")
                figures[f"{case}: last loss over the first"] = Figure.of([found["last"] / found["first"]], "x")
                goals[f"{case}: peak over the plan's"] = 1.1
                goals[f"{case}: last loss over the first"] = 1.0
        finally:
            for process in waiting.values():
                process.kill()
                process.communicate(timeout=60)
    result = Result("gpu_train", figures, {}, goals)
    result.print(options.json)
    sys.exit(0 if figures and all(result.met.values()) else 1)


def _start(case: str, arguments: list[str], scratch: Path) -> subprocess.Popen[str]:
    with _log(case, scratch).open("w") as log:
        command = [sys.executable, "-m", "benchmarks.gpu_train", "--run", case, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=log, text=True)


def _log(case: str, scratch: Path) -> Path:
    return scratch / f"{case.replace(' ', '-')}.log"


def _measure(case: str, process: subprocess.Popen[str], scratch: Path) -> dict[str, Any] | None:
    """What the process of a case found; None where it failed, which is said."""
    try:
        out, _ = process.communicate("go\n", timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        print(f"{case}: left out: no end within {TIMEOUT:.0f} s", file=sys.stderr)
        return None
    found = [line[6:] for line in out.splitlines() if line.startswith("FOUND ")]
    if not found:
        lines = _log(case, scratch).read_text().strip().splitlines() or [f"exit code {process.returncode}"]
        print(f"{case}: left out: {lines[-1][:300]}", file=sys.stderr)
        return None
    answer: dict[str, Any] = json.loads(found[0])
    return answer


def _train(case: str, steps: int, store: Path) -> None:
    import torch

    torch.set_num_threads(4)
    os.environ |= {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    import xgen.model  # before anything imports torchtitan
    from xgen.plan.memory import memory
    from xgen.runs import EventWriter, RunDir, StopFlag, TaskContext
    from xgen.spec import load_resolved
    from xgen.train.config import trainer_config
    from xgen.train.trainer import JobTrainer

    if not sys.stdin.readline():
        return
    with tempfile.TemporaryDirectory(prefix="xgen-gpu-") as folder:
        run = RunDir(Path(folder) / "gpu-aaaaaa")
        run.create()
        run.spec_file.write_text(yaml.safe_dump(_spec(case, store)))
        job: Any = load_resolved(run.spec_file)
        context = TaskContext(run, 1, "1", 0, 0, 1, StopFlag(), EventWriter(run, "rank0", 1, "1"))
        trainer = JobTrainer(trainer_config(job, run), context, job, None)
        assert not xgen.model.ON_CPU, "no GPU is here"
        trainer._restore()
        times = _at_every_step(trainer, steps + WARM_UP)
        with contextlib.suppress(StopIteration):
            trainer._train()
        losses = [json.loads(line)["loss"] for line in (run.metrics_dir / "steps.jsonl").read_text().splitlines()]
        batch, place = job.stages[0].global_batch, job.places[0]
        found = {
            "gpu": torch.cuda.get_device_name(),
            "rates": [batch / (end - begin) for begin, end in itertools.pairwise(times[WARM_UP:])],
            "flops": job.model.flops_per_token(0),
            "peak": torch.cuda.max_memory_allocated(),
            "planned": memory(job.model, place).total,
            "first": losses[0],
            "last": losses[-1],
        }
        print(f"FOUND {json.dumps(found)}", flush=True)
        os._exit(0)


def _at_every_step(trainer: Any, count: int) -> list[float]:
    """The times at which each step begins, filled while it trains; StopIteration ends it after `count` steps."""
    import torch

    times: list[float] = []
    collect: Callable[[int], None] = trainer.gc_handler.run

    def begin(step: int) -> None:
        torch.cuda.synchronize()
        times.append(time.perf_counter())
        if len(times) == WARM_UP:
            torch.cuda.reset_peak_memory_stats()
        if len(times) > count:
            raise StopIteration
        collect(step)

    trainer.gc_handler.run = begin
    return times


def _spec(case: str, store: Path) -> dict[str, Any]:
    from xgen.spec.models import MODELS

    name, layers, sequences, keys = CASES[case]
    model = dict(MODELS[name])
    model["num_layers"] = layers or model["num_layers"]
    return {
        "kind": "pretrain",
        "name": "gpu",
        "resources": {"nodes": 1, "gpus_per_node": 1, "cpus_per_task": 4, "time": "1h"},
        "lead": "30s",
        "model": model,
        "data": {"store": str(store.resolve())},
        "stages": [
            {
                "name": "only", "tokens": 1000 * sequences * keys["seq_len"], "rope_theta": 1e6,
                "global_batch": sequences * keys["seq_len"], "lr": {"peak": 1e-4, "warmup": 2}, **keys,
            }
        ],
        "checkpoint": {"every": 1_000_000, "keep": 2},
    }  # fmt: skip


if __name__ == "__main__":
    main()
