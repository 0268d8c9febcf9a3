"""What we add to a step of bare torchtitan: `python -m benchmarks.train_step [--json] [--rounds N]`.

Two processes of one rank train the same model on the same sequences, taking turns of ten steps in an order that
changes, so that a machine that others use does the same to both. Ours runs `JobTrainer._train`, with loader,
data proof, guard, events, steps.jsonl and the Prometheus exporter; the other runs torchtitan's own `Trainer.train`,
with its log line every ten steps, on batches that lie ready. "nano" has steps so short that what is added can be seen;
"small" has steps of a fifth of a second, for the ratio. The 95% intervals are of the median of the turns' pairs,
by bootstrap.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks import turns as turns_of
from benchmarks.common import ROOT, Figure, Result

TURN = 10  # steps
WAYS = ("ours", "torchtitan")
MODELS = {
    "nano": {"dim": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "ffn_dim": 64},
    "small": {"dim": 256, "num_layers": 6, "num_heads": 4, "num_kv_heads": 2, "ffn_dim": 768},
}
SEQ_LEN = {"nano": 64, "small": 256}
TIMEOUT = 900


@dataclass(frozen=True)
class Turn:
    """Seconds of a step: by the clock, and of CPU in all threads of the process."""

    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_step", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each, in every pair of processes")
    parser.add_argument("--pairs", type=int, default=5, help="of processes, one after the other: no two are alike")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--model", choices=MODELS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        _train(options.way, options.model, options.folder)
        return
    figures: dict[str, Figure] = {}
    peers: dict[str, Figure] = {}
    for model in MODELS:
        rounds = options.rounds * (10 if model == "nano" else 1)  # its turns are short
        turns: dict[str, list[Turn]] = {way: [] for way in WAYS}
        for _ in range(options.pairs):
            for way, more in _turns(model, rounds).items():
                turns[way] += more
        ours, bare = (turns[way] for way in WAYS)
        ratio = [o.wall / b.wall for o, b in zip(ours, bare, strict=True)]
        added = [1000 * (o.cpu - b.cpu) for o, b in zip(ours, bare, strict=True)]
        for name, values, unit in (("CPU added a step", added, "ms"), ("step time over torchtitan's", ratio, "x")):
            low, high = _interval(values)
            figures[f"{model}: {name}"] = Figure(statistics.median(values), min(values), max(values), len(values), unit)
            figures[f"{model}: {name}, 95% from"] = Figure.of([low], unit)
            figures[f"{model}: {name}, 95% to"] = Figure.of([high], unit)
        figures[f"{model}: step"] = Figure.of([turn.wall for turn in ours])
        peers[f"{model}: step of torchtitan"] = Figure.of([turn.wall for turn in bare])
    goals = {"nano: CPU added a step, 95% to": 2.0, "small: step time over torchtitan's, 95% to": 1.03}
    Result("train_step", figures, peers, goals).print(options.json)


def _interval(values: list[float]) -> tuple[float, float]:
    """95% of the median."""
    pick = random.Random(0)
    medians = sorted(statistics.median(pick.choices(values, k=len(values))) for _ in range(2000))
    return medians[50], medians[1949]


def _turns(model: str, rounds: int) -> dict[str, list[Turn]]:
    turns: dict[str, list[Turn]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="xgen-steps-", dir=ROOT / ".cache") as scratch:
        processes = {way: _start(way, model, Path(scratch) / way) for way in WAYS}
        try:
            for number in range(rounds + 2):
                for way in WAYS if number % 2 else WAYS[::-1]:
                    turn = Turn(**turns_of.turn(processes[way], Path(scratch) / way / "log"))
                    if number >= 2:  # the first ones warm up
                        turns[way].append(turn)
        finally:
            for process in processes.values():
                process.kill()
                process.communicate(timeout=60)
    return turns


def _start(way: str, model: str, folder: Path) -> subprocess.Popen[str]:
    folder.mkdir()
    command = [sys.executable, "-m", "benchmarks.train_step", "--way", way, "--model", model, "--folder", str(folder)]
    return turns_of.start(command, folder / "log")


def _train(way: str, model: str, folder: Path) -> None:
    """In a process of its own: steps without end, TURN of them for every line that comes."""
    turns_of.be_one_rank()
    train, trainer = _ours(model, folder) if way == "ours" else _bare(model, folder)
    collect, steps = trainer.gc_handler.run, itertools.count()
    began = (time.perf_counter(), time.process_time())

    def at_step(step: int) -> None:
        """Both loops call it first in every step."""
        nonlocal began
        if (number := next(steps)) % TURN == 0:
            now = (time.perf_counter(), time.process_time())
            if number:
                taken = {"wall": (now[0] - began[0]) / TURN, "cpu": (now[1] - began[1]) / TURN}
                print(f"TURN {json.dumps(taken)}", flush=True)
            if not sys.stdin.readline():
                os._exit(0)
            began = (time.perf_counter(), time.process_time())
        collect(step)

    trainer.gc_handler.run = at_step
    train()


def _job(model: str, folder: Path) -> Any:
    from xgen.runs import RunDir
    from xgen.spec import load_resolved

    length = SEQ_LEN[model]
    spec = {
        "kind": "pretrain",
        "name": "steps",
        "resources": {"nodes": 1, "gpus_per_node": 1, "time": "1h"},
        "lead": "30s",
        "model": {"name": model, "vocab_size": 4096, **MODELS[model]},
        "data": {"store": str(ROOT / ".cache/tiny-store")},
        "stages": [
            {
                "name": "only", "tokens": 100_000 * length, "seq_len": length, "global_batch": length,
                "lr": {"peak": 1e-4, "warmup": 2},
            }
        ],
        "checkpoint": {"every": 1_000_000, "keep": 2},
    }  # fmt: skip
    run = RunDir(folder / "steps-aaaaaa")
    run.create()
    run.spec_file.write_text(yaml.safe_dump(spec))
    return load_resolved(run.spec_file), run


def _ours(model: str, folder: Path) -> tuple[Callable[[], object], Any]:
    import xgen.model  # noqa: F401 - before anything imports torchtitan
    from xgen.metrics import RunExporter
    from xgen.runs import EventWriter, StopFlag, TaskContext, read_events, replay
    from xgen.train.config import trainer_config
    from xgen.train.trainer import JobTrainer

    job, run = _job(model, folder)
    events = EventWriter(run, "rank0", 1, "1")
    ledger = replay(read_events(run))
    events.subscribe(ledger)
    exporter = RunExporter(ledger, "127.0.0.1")
    exporter.start()
    context = TaskContext(run, 1, "1", 0, 0, 1, StopFlag(), events)
    trainer = JobTrainer(trainer_config(job, run), context, job, exporter)
    trainer._restore()
    return trainer._train, trainer


def _bare(model: str, folder: Path) -> tuple[Callable[[], object], Any]:
    """torchtitan with its own trainer, checkpoints off, schedule, metrics; the model and the batches are ours."""
    import xgen.model  # isort: skip # noqa: F401 - before anything imports torchtitan
    from torchtitan.trainer import Trainer

    from xgen.train.config import trainer_config

    job, run = _job(model, folder)
    ours = trainer_config(job, run)
    defaults = Trainer.Config()
    kept = ("checkpoint", "lr_scheduler", "metrics", "profiler", "validator")
    fields = {f.name for f in dataclasses.fields(Trainer.Config) if f.init} - set(kept)
    settings = {name: getattr(ours, name) for name in fields}
    trainer = Trainer(Trainer.Config(**settings, **{name: getattr(defaults, name) for name in kept}))
    reading = iter(trainer.dataloader)
    trainer.dataloader = itertools.cycle([next(reading) for _ in range(64)])
    reading.close()
    return trainer.train, trainer


if __name__ == "__main__":
    main()
