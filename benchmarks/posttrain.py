"""Post-training beside TRL's: `python -m benchmarks.posttrain [--json] [--rounds N]`.

SFT, DPO and GRPO of the same small model (6.8 million parameters, fp32, one thread) on the same records, ours and TRL's
in processes of one rank that take turns of a few steps, so that a machine that others use does the same to both. All
seconds are CPU time of the process. TRL runs in an environment of its own, as it comes but for gradient checkpointing,
which is off (benchmarks/peers/trl_trainers.py), and SFT also with batches of records of about one length. Steps are of
about as many records: ours packed into rows of 512 tokens, TRL's padded. Tokens are those of records, without padding.
Both compute the log-probabilities of DPO's reference before, once, which is not counted. GRPO samples 8 answers to each
of 4 prompts, which end after 40 tokens on average and 128 at most; TRL generates with transformers, as it comes. With
--full no answer ends before: nothing is gained by what has ended, and TRL's batches have no padding.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partialmethod
from pathlib import Path
from typing import Any

import yaml

from benchmarks import turns as turns_of
from benchmarks.chat_records import MODEL, SEQ_LEN, THETA, write_folder
from benchmarks.common import ROOT, Figure, Result, peak_memory, peer_python

PACKAGES = ("trl==1.16.0", "transformers==5.24.0")
TURN = 4  # steps
RECORDS = 8  # conversations in a step of TRL's: half as many pairs
SEQUENCES = 3  # of ours: as many tokens
PAIRS = 320
GROUP, PROMPTS, MAX_TOKENS = 8, 4, 128
KINDS = ("sft", "dpo", "grpo")
TRL_WAYS = {"sft": ("TRL", "TRL by length"), "dpo": ("TRL",), "grpo": ("TRL",)}
STEPS = {"sft": ("prepare", "train"), "dpo": ("prepare", "reference", "train"), "grpo": ("train",)}
GOALS = {"tokens": 1.5, "step": 0.5, "generation": 3.0}


@dataclass(frozen=True)
class Turn:
    """Of one turn: seconds of its steps, tokens without padding, and peak memory of the process so far in MB."""

    seconds: Sequence[float]
    tokens: int
    memory: float
    generating: float = 0.0  # seconds
    generated: int = 0  # tokens


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.posttrain", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--full", action="store_true", help="of GRPO: every answer is as long as it may be")
    parser.add_argument("--ours", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        _ours(options.ours, options.step, options.folder)
        return
    python = peer_python("trl", PACKAGES, "some 60 s", shared=True)
    figures: dict[str, Figure] = {}
    peers: dict[str, Figure] = {}
    goals: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="xgen-posttrain-", dir=ROOT / ".cache") as scratch:
        folder = Path(scratch)
        write_folder(folder, PAIRS, ends=not options.full)
        settings = {"records": RECORDS, "prompts": PROMPTS, "group": GROUP, "max_tokens": MAX_TOKENS}
        (folder / "settings.json").write_text(json.dumps(settings))
        for kind in options.kinds:
            turns = _turns(kind, folder, python, options.rounds)
            _compare(kind, turns, figures, peers, goals)
    Result("posttrain", figures, peers, goals).print(options.json)


def _compare(
    kind: str,
    turns: Mapping[str, Sequence[Turn]],
    figures: dict[str, Figure],
    peers: dict[str, Figure],
    goals: dict[str, float],
) -> None:
    for way, own in turns.items():
        into, name = (figures, kind) if way == "ours" else (peers, f"{kind}, {way}")
        into[f"{name}: step"] = Figure.of([statistics.mean(turn.seconds) for turn in own])
        into[f"{name}: peak memory"] = Figure.of([own[-1].memory], "MB")
        if kind == "grpo":
            rates = [turn.generated / turn.generating for turn in own]
            into[f"{name}: generation"] = Figure.of(rates, "tokens/s")
        else:
            into[f"{name}: tokens"] = Figure.of([turn.tokens / sum(turn.seconds) for turn in own], "tokens/s")
    if kind == "grpo":
        goals["grpo: step"] = GOALS["step"] * peers["grpo, TRL: step"].median
        goals["grpo: generation"] = GOALS["generation"] * peers["grpo, TRL: generation"].median
    else:
        goals[f"{kind}: tokens"] = GOALS["tokens"] * peers[f"{kind}, TRL: tokens"].median


def _turns(kind: str, folder: Path, python: Path, rounds: int) -> dict[str, list[Turn]]:
    ours = [sys.executable, "-m", "benchmarks.posttrain", "--ours", kind, "--folder", str(folder)]
    for step in STEPS[kind][:-1]:
        subprocess.run([*ours, "--step", step], cwd=ROOT, check=True, timeout=600, stdout=subprocess.DEVNULL)
    commands = {"ours": [*ours, "--step", "train"]}
    for way in TRL_WAYS[kind]:
        script = str(ROOT / "benchmarks/peers/trl_trainers.py")
        commands[way] = [str(python), script, kind, str(folder), str(TURN), *(["by-length"] if "length" in way else [])]
    turns: dict[str, list[Turn]] = {way: [] for way in commands}
    processes = {way: turns_of.start(command, folder / f"{kind}.{way}.log") for way, command in commands.items()}
    try:
        for number in range(rounds + 1):
            for way in list(commands) if number % 2 else list(commands)[::-1]:
                turn = Turn(**turns_of.turn(processes[way], folder / f"{kind}.{way}.log"))
                if number:  # the first ones warm up
                    turns[way].append(turn)
    finally:
        for process in processes.values():
            process.kill()
            process.communicate(timeout=60)
    return turns


def _ours(kind: str, step: str, folder: Path) -> None:
    """In a process of its own: one of the steps of the job; `train` takes its turns."""
    turns_of.be_one_rank()
    from xgen.cli import task
    from xgen.runs import EventWriter, RunDir, StopFlag, TaskContext

    run = RunDir(folder / f"{kind}-aaaaaa")
    if not run.path.exists():
        run.create()
        run.spec_file.write_text(yaml.safe_dump(_spec(kind, folder)))
        run.profile_file.write_text(yaml.safe_dump({"run_root": str(folder), "partitions": {"cpu": {}}}))
    own = run.shard(step, 0) if step == "reference" else run
    if own is not run:
        own.create()
        own.spec_file.symlink_to(run.spec_file)
        own.profile_file.symlink_to(run.profile_file)
    context = TaskContext(own, 1, "1", 0, 0, 1, StopFlag(), EventWriter(own, "rank0", 1, "1"), STEPS[kind].index(step))
    if step == "train":
        _take_turns()
    outcome = task._work(context)
    if outcome.status != "finished":
        raise SystemExit(f"{step}: {outcome.status}: {outcome.reason}")


def _take_turns() -> None:
    """Every TURN steps wait for a line, and tell of those before it."""
    import time

    import xgen.model  # noqa: F401 - before anything imports torchtitan
    from xgen.posttrain.rl.rollouts import Rollouts
    from xgen.posttrain.rl.trainer import RlTrainer
    from xgen.train.trainer import JobTrainer

    seconds: list[float] = []
    began, tokens, generating, generated = 0.0, 0, 0.0, 0

    def taken(trainer: JobTrainer) -> int:
        samples = getattr(trainer.dataloader, "samples", None)
        return sum(samples.taken((trainer.step - 1) * trainer.dataloader.per_step).values()) if samples else 0

    def timed(trainer: JobTrainer, data: Any, *, step: Callable[..., None]) -> None:
        nonlocal began, tokens, generating, generated
        if (trainer.step - 1) % TURN == 0:
            if seconds:
                said = Turn(seconds, taken(trainer) - tokens, peak_memory(), generating, generated)
                print(f"TURN {json.dumps(asdict(said))}", flush=True)
            if not sys.stdin.readline():
                os._exit(0)
            seconds.clear()
            generating, generated = 0.0, 0
            tokens, began = taken(trainer), time.process_time()
        step(trainer, data)
        now = time.process_time()
        seconds.append(now - began)
        began = now

    def collect(rollouts: Rollouts, *arguments: Any, whole: Callable[..., Any] = Rollouts.collect) -> Any:
        nonlocal generating, generated
        before = time.process_time()
        found = whole(rollouts, *arguments)
        generating += time.process_time() - before
        generated += sum(len(answer.tokens) for group in found.groups for answer in group.answers)
        return found

    for kind in (JobTrainer, RlTrainer):
        kind.train_step = partialmethod(timed, step=kind.train_step)  # type: ignore[assignment, method-assign]
    Rollouts.collect = collect  # type: ignore[method-assign]


def _spec(kind: str, folder: Path) -> dict[str, Any]:
    common = {
        "name": kind,
        "resources": {"nodes": 1, "gpus_per_node": 1, "time": "1h"},
        "lead": "30s",
        "model": MODEL,
        "init": {"hf": str(folder / "hf")},
        "checkpoint": {"every": 1_000_000},
    }
    layout = {
        "steps": 1_000_000, "seq_len": SEQ_LEN, "rope_theta": THETA, "lr": {"peak": 1e-5}, "attention": "varlen",
    }  # fmt: skip
    texts = {"tokenizer": str(folder / "hf"), "sources": {"text": str(folder / f"{kind}.jsonl")}}
    if kind == "grpo":
        return common | {
            "kind": "rl",
            "prompts": texts | {"max_tokens": SEQ_LEN - MAX_TOKENS},
            "rollout": {"prompts": PROMPTS, "group": GROUP, "max_tokens": MAX_TOKENS},
            "rewards": {"*": {"kind": "format", "pattern": "(?s)(..)*"}},  # as TRL's: answers of even length
            "verification": {"workers": 1},
            "train": layout | {"sequences": 16, "micro_batch": 1},
            "samples_every": 0,
        }
    return common | {
        "kind": {"sft": "sft", "dpo": "preference"}[kind],
        "data": texts,
        "train": layout | {"sequences": SEQUENCES, "micro_batch": SEQUENCES},
    }


if __name__ == "__main__":
    main()
