"""Evaluate runs and trainings as their files are, made without a model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xgen.evals.protocol import Record
from xgen.evals.records import RecordWriter, step_folder
from xgen.evals.summary import summarize
from xgen.runs import RunDir, write_atomic
from xgen.spec import Evaluate, Pretrain, dump

RESOURCES = {"nodes": 1, "gpus_per_node": 1, "time": "1h"}


def evaluation(run: str = "train-aaaaaa", **keys: Any) -> Evaluate:
    keys.setdefault("ruler", {"tasks": ["niah_single_1", "vt"], "lengths": [1024, 2048], "samples": 4})
    of = {"kind": "evaluate", "name": "eval", "checkpoints": {"run": run}, "resources": RESOURCES}
    return Evaluate.model_validate({**of, **keys})


def training(name: str = "train", **keys: Any) -> Pretrain:
    stage = {"name": "only", "tokens": "400k", "seq_len": 256, "global_batch": "1k", "lr": {"peak": 3e-3, "warmup": 10}}
    of = {"kind": "pretrain", "name": name, "model": "tiny", "data": {"store": "store"}, "stages": [stage]}
    return Pretrain.model_validate({**of, "resources": RESOURCES, **keys})


def record(suite: str, task: str, length: int, index: int, score: float, **more: Any) -> Record:
    facts = {"tokens": length, "seconds": 0.1, "digest": f"{suite}/{task}/{length}/{index}"}
    return Record.model_validate(
        {"suite": suite, "task": task, "length": length, "index": index, "score": score, **facts, **more}
    )


def answers(suite: str, task: str, length: int, right: Sequence[int], **more: Any) -> list[Record]:
    """One record for each 1 or 0 of `right`."""
    return [record(suite, task, length, index, score, **more) for index, score in enumerate(right)]


def make_run(root: Path, name: str, job: Evaluate | Pretrain) -> RunDir:
    run = RunDir(root / name)
    run.create()
    run.spec_file.write_text(dump(job))
    return run


def make_evaluation(
    root: Path, name: str, job: Evaluate, steps: Mapping[int, Iterable[Record]], done: bool = True
) -> RunDir:
    run = make_run(root, name, job)
    for step, of in steps.items():
        records = list(of)
        folder = step_folder(run, step)
        with RecordWriter(folder / "0.jsonl") as writer:
            for one in records:
                writer.append(one)
        if done:
            write_atomic(folder / "scores.json", summarize(records).model_dump_json())
    return run


def make_training(root: Path, name: str, job: Pretrain, losses: Sequence[float], batch: int = 1024) -> RunDir:
    run = make_run(root, name, job)
    lines = [
        {"step": step, "loss": loss, "loss_hex": loss.hex(), "grad_norm": 1.0, "lr": 1e-3, "tokens": batch * step,
         "seconds": 0.5, "stage": "only", "time": 1000.0 + step}
        for step, loss in enumerate(losses, start=1)
    ]  # fmt: skip
    (run.metrics_dir / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run
