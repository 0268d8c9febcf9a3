"""What a save costs the training: `python -m benchmarks.checkpoint [--json] [--rounds N] [--disk MB/s]`.

A model of 93 million parameters (1.1 GB of weights and optimizer) trains on one rank. After some steps it saves twice,
onto a disk of 100 MB/s (a shim between the program and the file system, which needs gcc; --disk 0 takes the disk as it
is). The cost of a save is what the steps from it on, until it is durable, take longer than the undisturbed ones
before it, the standing still included. Ours, asynchronous and waited for, beside torchtitan's own manager in both
ways, each in a process of its own, round by round. "first" is the first save of a process, "later" the second.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import ROOT, Figure, Result

WAYS = ("ours", "ours, waited for", "torchtitan async", "torchtitan sync")
UNDISTURBED, TIMEOUT = 6, 900
SPEC: dict[str, Any] = {
    "kind": "pretrain",
    "name": "saves",
    "resources": {"nodes": 1, "gpus_per_node": 1, "cpus_per_task": os.cpu_count() or 1, "time": "1h"},
    "lead": "30s",
    "model": {
        "name": "saves", "dim": 768, "num_layers": 12, "num_heads": 12, "num_kv_heads": 12, "ffn_dim": 2048,
        "vocab_size": 4096,
    },
    "data": {"store": str(ROOT / ".cache/tiny-store")},
    "stages": [
        {"name": "only", "tokens": "1M", "seq_len": 128, "global_batch": 128, "lr": {"peak": 1e-4, "warmup": 2}}
    ],
    "checkpoint": {"every": 1_000_000, "keep": 2},
}  # fmt: skip


@dataclass(frozen=True)
class Saved:
    """Seconds, of one process."""

    first: float
    later: float
    step: float  # an undisturbed one


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--disk", type=float, default=100.0, metavar="MB/s")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(_train(options.way, options.folder)))
        return
    results: dict[str, list[Saved]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="xgen-saves-", dir=ROOT / ".cache") as scratch:
        shim = _shim(Path(scratch)) if options.disk else None
        for number in range(options.rounds):
            for way in WAYS:
                folder = Path(scratch) / f"{number}-{WAYS.index(way)}"
                results[way].append(_process(way, folder, shim, options.disk))
                shutil.rmtree(folder)
    costs = {
        f"{way}, {which}": Figure.of([getattr(saved, which) for saved in results[way]])
        for way in WAYS
        for which in ("first", "later")
    }
    waited = costs["ours, waited for, later"].median
    figures = {name: figure for name, figure in costs.items() if name.startswith("ours")}
    figures["step"] = Figure.of([saved.step for runs in results.values() for saved in runs])
    peers = {name: figure for name, figure in costs.items() if not name.startswith("ours")}
    # The goal of the project: under a tenth of a save that is waited for.
    goals = {"ours, first": waited / 10, "ours, later": waited / 10}
    Result("checkpoint", figures, peers, goals).print(options.json)


def _shim(folder: Path) -> Path:
    library = folder / "throttle.so"
    source = ROOT / "benchmarks/throttle.c"
    try:
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl", "-lpthread"], check=True)
    except FileNotFoundError:
        sys.exit("gcc is missing, and the slow disk is made with it; install it, or write --disk 0")
    return library


def _process(way: str, folder: Path, shim: Path | None, disk: float) -> Saved:
    folder.mkdir()
    env = dict(os.environ)
    if shim:
        env |= {"LD_PRELOAD": str(shim), "THROTTLE_DIR": str(folder), "THROTTLE_BYTES": str(disk * 1e6)}
    command = [sys.executable, "-m", "benchmarks.checkpoint", "--way", way, "--folder", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stderr[-3000:]}")
    return Saved(**json.loads(done.stdout.splitlines()[-1]))


def _train(way: str, folder: Path) -> dict[str, float]:
    """In a process of its own: undisturbed steps, a save, steps until it is durable, undisturbed ones; twice.

    What is usual is taken before and after: a machine that others use changes its pace meanwhile.
    """
    import torch

    os.environ |= {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    torch.set_num_threads(os.cpu_count() or 1)
    trainer = _trainer(way, folder)
    manager = trainer.checkpointer
    manager.load()
    trainer.metrics_processor.time_last_log = time.perf_counter()
    data = trainer._batches()
    costs: list[float] = []
    after = [_step(trainer, data) for _ in range(UNDISTURBED)][2:]
    usual = 0.0
    for _ in range(2):
        before = after
        began, number = time.perf_counter(), 0
        _save(way, manager, trainer.step)
        while number < 3 or _is_writing(way, manager):
            _step(trainer, data)
            number += 1
        taken = time.perf_counter() - began
        after = [_step(trainer, data) for _ in range(UNDISTURBED)]
        usual = statistics.median(before + after)
        costs.append(taken - number * usual)
    trainer.close()
    return {"first": costs[0], "later": costs[1], "step": usual}


def _step(trainer: Any, data: Any) -> float:
    began = time.perf_counter()
    trainer.step += 1
    trainer.train_step(data)
    return time.perf_counter() - began


def _trainer(way: str, folder: Path) -> Any:
    import dataclasses

    from torchtitan.components.checkpointer.dcp import CheckpointManager

    import xgen.model  # noqa: F401 - before anything imports torchtitan
    from xgen.runs import RunDir, StopFlag, TaskContext
    from xgen.spec import Pretrain, load_resolved
    from xgen.train.config import trainer_config
    from xgen.train.trainer import JobTrainer

    run = RunDir(folder / "saves-aaaaaa")
    run.create()
    run.spec_file.write_text(yaml.safe_dump(SPEC))
    job = load_resolved(run.spec_file)
    assert isinstance(job, Pretrain)
    config = trainer_config(job, run)
    if way.startswith("torchtitan"):
        mode = "async" if way.endswith("async") else "disabled"
        own = CheckpointManager.Config(enable=True, interval=1, async_mode=mode, keep_latest_k=0)
        config = dataclasses.replace(config, checkpoint=own)
    return JobTrainer(config, TaskContext(run, 1, "1", 0, 0, 1, StopFlag(), None), job, None)


def _save(way: str, manager: Any, step: int) -> None:
    if way == "ours, waited for":
        manager.save_now(step)
    elif way == "ours":
        manager._begin(step, wait=False)
    else:
        manager.save(step)


def _is_writing(way: str, manager: Any) -> bool:
    if way.startswith("ours"):
        manager._poll()
        return manager._under_way is not None
    future = manager.save_future
    return future is not None and not future.done()


if __name__ == "__main__":
    main()
