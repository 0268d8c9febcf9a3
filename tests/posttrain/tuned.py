"""Small post-trainings of forked ranks, from a small pre-training of another layout, on planted conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT
from tests.train.forked import SPEC, Training
from xgen.runs import RunDir

MODEL = {**SPEC["model"], "num_kv_heads": 2}  # type: ignore[dict-item]
STEPS, SEQ_LEN = 6, 256
TOKENIZER = str(ROOT / ".cache/tiny-store/tokenizer.json")
TEMPLATE = str(ROOT / "jobs/tiny/chat.jinja")


def pretrained(folder: Path, world_size: int = 2, **parallelism: int) -> Training:
    """The run that others begin from: two steps, saved."""
    base = Training(RunDir(folder / "base-aaaaaa"), world_size)
    base.change("resources", "gpus_per_node", world_size)
    base.change("model", MODEL)
    base.change("stages", 0, {**SPEC["stages"][0], "seq_len": SEQ_LEN, "global_batch": 512, "tokens": 1024})  # type: ignore[index]
    base.change("stages", 0, "parallelism", parallelism)
    assert {o.status for o in base.go()} == {"finished"}, base._log()
    return base


def conversations(path: Path, first: int, count: int) -> str:
    """Words that the assistant says again: of `count` conversations from number `first` on."""
    words = ["apple", "river", "stone", "cloud", "green", "seven", "music", "table", "north", "glass"]
    lines = []
    for number in range(first, first + count):
        said = " ".join(words[number // 10**k % 10] for k in range(3))
        messages = [
            {"role": "user", "content": f"Say again: {said}"},
            {"role": "assistant", "content": f"{said}. " * (1 + number % 4)},
        ]
        lines.append(json.dumps({"messages": messages}))
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def sft_spec(folder: Path, **keys: Any) -> dict[str, Any]:
    """A spec of two sources; `keys` go on top."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "kind": "sft",
        "name": "nano-sft",
        "resources": SPEC["resources"],
        "lead": "30s",
        "model": MODEL,
        "init": "base-aaaaaa",
        "data": {
            "tokenizer": TOKENIZER,
            "template": TEMPLATE,
            "sources": {
                "again": conversations(folder / "again.jsonl", 0, 120),
                "more": {"path": conversations(folder / "more.jsonl", 500, 60), "weight": 0.5},
            },
            "out": str(folder / "prepared/chat"),
        },
        "validation": {"sources": {"again": conversations(folder / "held-out.jsonl", 900, 40)}, "every": 3},
        "train": {
            "steps": STEPS, "sequences": 2, "seq_len": SEQ_LEN, "lr": {"peak": 3e-3, "shape": "linear"},
        },
        "checkpoint": {"every": 2, "keep": 9, "mode": "sync"},
        "deterministic": True,
        **keys,
    }  # fmt: skip


class Tuning(Training):
    """Attempts on the job that trains, or on one that comes before it."""

    def __init__(self, run: RunDir, spec: dict[str, Any], world_size: int = 2, **parallelism: int) -> None:
        super().__init__(run, world_size)
        (run.path.parent / "prepared").mkdir(exist_ok=True)
        resources = {**spec["resources"], "gpus_per_node": world_size}
        layout = {**spec["train"], "parallelism": parallelism}
        run.spec_file.write_text(yaml.safe_dump({**spec, "resources": resources, "train": layout}))
        self.stage = 1

    def prepare(self) -> None:
        """By one task."""
        stage, world_size = self.stage, self.world_size
        self.stage, self.world_size = 0, 1
        assert [o.status for o in self.go()] == ["finished"], self._log()
        self.stage, self.world_size = stage, world_size

    def validations(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run.metrics_dir / "validation.jsonl").read_text().splitlines()]

    def rounded(self) -> list[float]:
        """Losses of the steps, to five decimals."""
        return [round(float.fromhex(loss), 5) for _, loss in sorted(self.losses().items())]


def assert_same_after_a_stop(whole: Tuning, stopped: Tuning) -> None:
    """The second run, told to stop and begun again, does what the first did: bit for bit, on the same data."""
    outcomes = stopped.go(during=stopped.signal_at(3, rank=1))
    assert {o.status for o in outcomes} == {"stopped"} and (outcomes[0].step or 0) < STEPS, stopped._log()
    assert {o.status for o in stopped.go()} == {"finished"}, stopped._log()
    assert stopped.losses() == whole.losses()
    manifests = [(one.run.checkpoints_dir / f"step-{STEPS}/manifest.json").read_text() for one in (whole, stopped)]
    assert len({json.loads(manifest)["data_digest"] for manifest in manifests}) == 1
