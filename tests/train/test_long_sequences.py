"""Long sequences on a CPU: attention goes block by block, and ranks that share a sequence train as one does."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.train.forked import Training
from xgen.runs import RunDir

SEQUENCES = 2  # a step
LAYOUTS = {
    "cp 2": (2, {"cp": 2}, "none"),
    "cp 4": (4, {"cp": 4}, "full"),
    "tp 2 x cp 2": (4, {"tp": 2, "cp": 2}, "selective"),
    "pp 2": (2, {"pp": 2}, "none"),
}


def make(folder: Path, seq_len: int, steps: int, sequences: int = SEQUENCES) -> Training:
    """One rank that saves every step."""
    training = Training(RunDir(folder / "nano-aaaaaa"), world_size=1)
    training.change("model", "num_heads", 4)
    training.change("model", "num_kv_heads", 2)
    training.change("resources", "gpus_per_node", 1)
    training.change("stages", 0, "seq_len", seq_len)
    training.change("stages", 0, "global_batch", sequences * seq_len)
    training.change("stages", 0, "tokens", steps * sequences * seq_len)
    training.change("checkpoint", {"every": 1, "keep": steps + 1, "mode": "sync"})
    return training


def go_on(
    before: Training, step: int, folder: Path, world_size: int, parallelism: dict[str, int], recomputed: str = "none"
) -> Training:
    """Other ranks train what was left to do after that step."""
    training = Training(RunDir(folder / "nano-bbbbbb"), world_size)
    training.run.spec_file.write_text(before.run.spec_file.read_text())
    training.change("resources", "gpus_per_node", world_size)
    training.change("stages", 0, "parallelism", parallelism)
    training.change("stages", 0, "activation_checkpointing", recomputed)
    shutil.copytree(before.run.checkpoints_dir / f"step-{step}", training.run.checkpoints_dir / f"step-{step}")
    assert {o.status for o in training.go(timeout=240)} == {"finished"}, training._log()
    assert training.event("restore_end").step == step  # type: ignore[union-attr]
    return training


def assert_same_steps(training: Training, alone: Training, first: int, last: int) -> None:
    """The samples are the same ones, each counted once; losses to five decimals: sums in another order."""
    steps, expected = ({r["step"]: r for r in t._records() if r["step"] >= first} for t in (training, alone))
    assert list(steps) == list(expected) == list(range(first, last + 1))
    for step, record in steps.items():
        assert record["data"] == expected[step]["data"]
        assert record["loss"] == pytest.approx(expected[step]["loss"], abs=5e-6)
        assert record["grad_norm"] == pytest.approx(expected[step]["grad_norm"], rel=1e-4)


@pytest.fixture(scope="module")
def long(_warm: None, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Two steps of two sequences of 8k tokens."""
    training = make(tmp_path_factory.mktemp("long"), 8192, steps=2)
    assert {o.status for o in training.go(timeout=180)} == {"finished"}, training._log()
    return training


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ranks_that_share_a_long_sequence_train_as_one_does(long: Training, tmp_path: Path, layout: str) -> None:
    """Whatever of the forward pass is computed again."""
    assert_same_steps(go_on(long, 1, tmp_path, *LAYOUTS[layout]), long, 2, 2)


def peaks(into: list[float]) -> Any:
    """For `go(during=...)`: the peak resident memory of each rank in GB."""

    def act(pids: list[int]) -> None:
        seen = dict.fromkeys(pids, 0.0)
        while alive := [pid for pid in pids if "VmHWM" in Path(f"/proc/{pid}/status").read_text()]:
            for pid in alive:
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM"):
                        seen[pid] = int(line.split()[1]) / 1e6
            time.sleep(0.1)
        into.extend(seen.values())

    return act


@pytest.mark.slow
def test_one_sequence_of_128k_tokens(_warm: None, tmp_path: Path) -> None:
    """A dense mask of it alone would be 17 GB."""
    training = make(tmp_path, 131072, steps=1, sequences=1)
    training.world_size = 4
    training.change("resources", "gpus_per_node", 4)
    training.change("stages", 0, "parallelism", {"cp": 4})
    memory: list[float] = []
    assert {o.status for o in training.go(peaks(memory), timeout=900)} == {"finished"}, training._log()
    assert max(memory) < 4
    assert list(training.losses()) == [1]
