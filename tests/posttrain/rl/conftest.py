"""A job of online RL, small enough to be made in a moment; and all that it needs to run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.posttrain.rl.trainings import RlTraining
from tests.posttrain.rl.world import make_world
from tests.train.forked import warm_up
from xgen.runs import RunDir
from xgen.spec import Rl

SPEC: dict[str, Any] = {
    "kind": "rl",
    "name": "sums",
    "resources": {"nodes": 1, "gpus_per_node": 1, "time": "10m"},
    "lead": "30s",
    "init": {"hf": "nowhere"},
    "model": {
        "name": "nano", "dim": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "ffn_dim": 64,
        "vocab_size": 128,
    },
    "train": {"steps": 8, "sequences": 8, "seq_len": 64, "lr": {"peak": "1e-3"}},
    "prompts": {"tokenizer": "nowhere", "sources": {"sums": "nowhere.jsonl"}, "max_tokens": 24},
    "rollout": {"prompts": 4, "group": 4, "max_tokens": 8},
    "rewards": {"sums": {"kind": "exact"}},
}  # fmt: skip


def rl_job(**changes: Any) -> Rl:
    """`rollout__group=2` for rollout: {group: 2}."""
    spec: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value for key, value in SPEC.items()}
    for key, value in changes.items():
        *path, last = key.split("__")
        place = spec
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return Rl.model_validate(spec)


@pytest.fixture
def job() -> Rl:
    return rl_job()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    warm_up()
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder


@pytest.fixture
def made(world: Path, tmp_path: Path) -> Callable[..., RlTraining]:
    numbers = iter("abcdefgh")

    def make(world_size: int = 1, **changes: Any) -> RlTraining:
        return RlTraining(RunDir(tmp_path / "runs" / f"sums-{next(numbers) * 6}"), world, world_size, **changes)

    return make


@pytest.fixture(scope="session")
def undisturbed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> RlTraining:
    training = RlTraining(RunDir(tmp_path_factory.mktemp("undisturbed") / "sums-undist"), world)
    assert [o.status for o in training.go()] == ["finished"]
    return training
