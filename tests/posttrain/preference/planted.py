"""Pairs with a planted preference, a small model to begin with, and runs of a `preference` job on forked ranks."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import torch
import yaml

from tests.conftest import ROOT
from tests.train.forked import Training
from xgen.model.hf import Context, config_json, hf_name, parameter_shapes
from xgen.model.shards import write_shards
from xgen.runs import RankOutcome, RunDir
from xgen.spec import ModelSpec

SEQ_LEN = 128
MODEL = {
    "name": "nano", "dim": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 2, "ffn_dim": 64, "vocab_size": 4160,
}  # fmt: skip
_WORDS = [
    "sun", "moon", "star", "river", "road", "tree", "stone", "light", "night", "door", "king", "queen", "ship", "horse",
]  # fmt: skip
_KIND, _RUDE = ["please", "thank", "kind", "gentle"], ["fool", "never", "hate", "worst"]


def write_pairs(file: Path, num: int, seed: int) -> None:
    """The better answer has kind words where the worse one has rude ones, among words that mean nothing."""
    pick = random.Random(seed)

    def answer(marked: list[str]) -> str:
        words = pick.choices(_WORDS, k=pick.randint(1, 6)) + pick.choices(marked, k=2)
        pick.shuffle(words)
        return " ".join(words)

    with file.open("w") as out:
        for _ in range(num):
            asked = [{"role": "user", "content": " ".join(pick.choices(_WORDS, k=pick.randint(1, 8)))}]
            better, worse = ([{"role": "assistant", "content": answer(kind)}] for kind in (_KIND, _RUDE))
            print(json.dumps({"prompt": asked, "chosen": better, "rejected": worse}), file=out)


def write_model(folder: Path, seed: int = 0) -> None:
    """Random weights as a Hugging Face folder, with a tokenizer that knows ChatML."""
    folder.mkdir()
    tokenizer = tokenizers.Tokenizer.from_file(str(ROOT / ".cache/tiny-store/tokenizer.json"))
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    spec = ModelSpec.model_validate(MODEL)
    (folder / "config.json").write_text(json.dumps(config_json(spec, Context(SEQ_LEN, 1e4, None, "float32", eos=0))))
    torch.manual_seed(seed)
    shapes = {hf_name(name): shape for name, shape in parameter_shapes(spec).items()}
    drawn = {name: torch.ones(shape) if len(shape) == 1 else 0.1 * torch.randn(shape) for name, shape in shapes.items()}
    write_shards(folder, shapes, torch.float32, drawn.__getitem__)


def write_inputs(folder: Path) -> None:
    write_model(folder / "hf")
    write_pairs(folder / "pairs.jsonl", 160, seed=1)
    write_pairs(folder / "held-out.jsonl", 60, seed=2)


def spec_of(inputs: Path, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "preference",
        "name": "nano-dpo",
        "resources": {"nodes": 1, "gpus_per_node": 1, "time": "5m"},
        "lead": "30s",
        "model": MODEL,
        "init": {"hf": str(inputs / "hf")},
        "data": {"tokenizer": str(inputs / "hf"), "sources": {"kind": str(inputs / "pairs.jsonl")}},
        "validation": {"sources": {"kind": str(inputs / "held-out.jsonl")}, "every": 1000},
        "train": {"steps": 8, "sequences": 4, "seq_len": SEQ_LEN, "lr": {"peak": 1e-3, "warmup": 2}},
        "checkpoint": {"every": 2, "keep": 3, "mode": "sync"},
        "deterministic": True,
    } | changes  # fmt: skip


class PreferenceRun(Training):
    """All of its steps in this machine, one after the other."""

    def __init__(self, folder: Path, spec: dict[str, Any], world_size: int = 1) -> None:
        super().__init__(RunDir(folder / "runs" / "nano-dpo-aaaaaa"), world_size)
        self.run.spec_file.write_text(yaml.safe_dump(spec))
        self.whole = self.run

    def step(self, name: str, during: Callable[[list[int]], None] | None = None, **how: Any) -> list[RankOutcome]:
        """One attempt of one of its jobs, `prepare`, `reference` or `train`."""
        from xgen.spec import load_resolved

        names = [job for job, _ in load_resolved(self.whole.spec_file).jobs]
        self.stage = names.index(name)
        self.run = self.whole.shard(name, 0) if name == "reference" else self.whole
        if name == "reference" and not self.run.path.exists():
            self.run.create()
            self.run.spec_file.symlink_to(self.whole.spec_file)
            self.run.profile_file.symlink_to(self.whole.profile_file)
        self.attempt = self.run.last_attempt()
        ranks, self.world_size = self.world_size, 1 if name == "prepare" else self.world_size
        try:
            return self.go(during, **how)
        finally:
            self.run, self.world_size = self.whole, ranks

    def all_steps(self) -> None:
        from xgen.spec import load_resolved

        for name, _ in load_resolved(self.whole.spec_file).jobs:
            assert {outcome.status for outcome in self.step(name)} == {"finished"}

    def validations(self) -> list[dict[str, Any]]:
        """Of the only held-out source, in their order."""
        lines = (self.whole.metrics_dir / "validation.jsonl").read_text().splitlines()
        return [{"step": record["step"], **record["domains"]["kind"]} for record in map(json.loads, lines)]

    def extra(self, name: str) -> list[float]:
        return [record["extra"][f"train_preference_{name}"] for record in self._records()]
