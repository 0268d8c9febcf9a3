"""Runs of a trainer that asks rollout servers, on any scheduler: how they are submitted, and what must be so after."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.work.rollout_trainer import ANSWERS, TOKENS
from tests.conftest import ROOT
from tests.posttrain.servers.tiny_server import next_token
from xgen.cluster.prepare import prepare
from xgen.cluster.submit import submit
from xgen.runs import RunDir
from xgen.spec import load_job, load_profile

SERVER = str(ROOT / "tests/posttrain/servers/tiny_server.py")
TRAINER = str(ROOT / "tests/cluster/work/rollout_trainer.py")


def submit_rollout(
    folder: Path, profile: Path, *, steps: int, pause: float, servers: dict[str, Any] | None = None, **keys: Any
) -> RunDir:
    """A run whose trainer is work/rollout_trainer.py, with two servers that take `pause` seconds for a token, of the
    resources in `servers`.

    The Python of its tasks is a script that starts the one for the stage `train`, and xgen's own task for `rollout`.
    """
    python = folder / "python"
    python.write_text(
        f'#!/bin/sh\nexport PYTHONPATH={ROOT}\n[ "$XGEN_STAGE" = 0 ] || {{ shift 2; set -- {TRAINER} "$@"; }}\n'
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    settings = yaml.safe_load(profile.read_text())
    settings["container"] = {"runtime": "none", "python": str(python)}
    own = folder / "rollout.yaml"
    own.write_text(yaml.safe_dump(settings))
    model = {"name": "small", "dim": 32, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "ffn_dim": 64}
    command = [sys.executable, SERVER, "--host", "{host}", "--port", "{port}", "--model", "{model}"]
    kind = {"kind": "transformers", "command": command, "arguments": ["--pause", str(pause)], "resources": servers}
    spec: dict[str, Any] = {
        "kind": "rl",
        "name": "rollouts",
        "model": model | {"vocab_size": 96},
        "init": "base-abc234",
        "lead": "10s",
        "resources": {"nodes": 1, "gpus_per_node": 0, "time": "5m", "memory": "2GB"},
        "prompts": {"tokenizer": "/none", "sources": {"math": "/none"}, "max_tokens": 64},
        "rollout": {
            "prompts": 4, "max_tokens": 128,
            "servers": kind | {"array": {"shards": 2}, "timeout": "30s", "at_once": 4},
        },
        "rewards": {"math": {"kind": "math"}},
        "train": {"steps": steps, "sequences": 16, "seq_len": 1024, "lr": {"peak": 1e-6}},
    }  # fmt: skip
    file = folder / "rollouts.yaml"
    file.write_text(yaml.safe_dump(spec | keys))
    prepared = prepare(load_job(file), "dev", load_profile(own))
    submit(prepared)
    return prepared.run


def answers(run: RunDir) -> list[dict[str, Any]]:
    file = run.path / "answers.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def assert_every_answer_once(run: RunDir, steps: int) -> None:
    """Each whole, of the weights of its step, and with the tokens that those give whichever server was asked."""
    found = answers(run)
    wanted = [f"{step}/{number}" for step in range(1, steps + 1) for number in range(ANSWERS)]
    assert Counter(one["id"] for one in found) == Counter(wanted)
    for one in found:
        tokens = [int(part) for part in one["id"].split("/")]
        assert one["versions"] == [[tokens[0], TOKENS]]
        for _ in range(TOKENS):
            tokens.append(next_token(one["weights"], tokens))
        assert one["tokens"] == tokens[2:], one["id"]
