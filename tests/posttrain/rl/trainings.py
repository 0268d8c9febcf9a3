"""Trainings of online RL by forked ranks, what they leave, and what is done to them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.posttrain.rl.world import spec
from tests.train.forked import Training
from xgen.runs import RunDir

STEPS = 6


class RlTraining(Training):
    def __init__(self, run: RunDir, world: Path, world_size: int = 1, **changes: Any) -> None:
        super().__init__(run, world_size)
        written = spec(world)
        written["resources"]["gpus_per_node"] = world_size
        self.run.spec_file.write_text(yaml.safe_dump(written))
        for key, value in changes.items():
            self.change(*key.split("__"), value)

    def records(self) -> dict[int, dict[str, Any]]:
        """Of each step the last."""
        return {record["step"]: record for record in self._records()}

    def extras(self, name: str) -> list[float]:
        return [record["extra"].get(name, 0.0) for record in self.records().values()]

    def evaluations(self) -> dict[int, float]:
        lines = (self.run.metrics_dir / "evaluation.jsonl").read_text().splitlines()
        return {line["step"]: line["sources"]["held-out"]["pass_rate"] for line in map(json.loads, lines)}

    def journalled(self, step: int) -> int:
        """Lines of answers and verdicts of a step."""
        files = (self.run.path / "rollouts").glob(f"step-{step}.*")
        return sum(len(file.read_text().splitlines()) for file in files)


def assert_same(one: RlTraining, other: RlTraining) -> None:
    from xgen.train.compare import compare_checkpoints

    assert one.losses() == other.losses()
    assert [r["data"] for r in one.records().values()] == [r["data"] for r in other.records().values()]
    folders = (t.run.checkpoints_dir / f"step-{STEPS}" for t in (one, other))
    count, differing = compare_checkpoints(*folders)
    assert count > 50
    assert differing == []


def killed_at(training: Training, step: int) -> Callable[[list[int]], None]:
    """For `go(during=...)`: kill -9 of every rank while that step is under way."""

    def act(pids: list[int]) -> None:
        training.wait_for_step(step - 1)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    return act


def slow_engine(seconds: float) -> Callable[[int], None]:
    """For `go(in_rank=...)`: the first token of answers takes so long."""

    def slow(_rank: int) -> None:
        from xgen.engine.inprocess import InProcessEngine

        step = InProcessEngine._step

        def slowly(self: InProcessEngine) -> None:
            if any(answer and not answer.tokens and answer.is_ready for answer in self._rows):
                time.sleep(seconds)
            step(self)

        pytest.MonkeyPatch().setattr(InProcessEngine, "_step", slowly)

    return slow
