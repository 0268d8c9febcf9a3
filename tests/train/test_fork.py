"""A run that was forked from a checkpoint of another, to other data, goes on from there; any other run is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.train.conftest import STEPS, Training
from xgen.runs import RunDir
from xgen.runs.origin import Origin


@pytest.fixture
def forked(_warm: None, undisturbed: Training, tmp_path: Path) -> Training:
    """Step 4 of the parent, and a spec with other data in samples of twice the length."""
    training = Training(RunDir(tmp_path / "nano-eeeeee"))
    training.change("data", "mixtures", {"prose": {"literature": 1.0}})
    training.change("stages", 0, "seq_len", 128)
    shutil.copytree(undisturbed.run.checkpoints_dir / "step-4", training.run.checkpoints_dir / "step-4")
    return training


def test_other_data_goes_on_at_the_step_of_the_fork(forked: Training, undisturbed: Training) -> None:
    path = str(undisturbed.run.path)
    Origin(parent="p", parent_path=path, step=4, changed={}, data_changed=True, time=0).write(forked.run)
    assert {o.status for o in forked.go()} == {"finished"}
    assert forked.event("restore_end").step == 4  # type: ignore[union-attr]
    records = [json.loads(line) for line in (forked.run.metrics_dir / "steps.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(5, STEPS + 1))
    assert [record["first_sample"] for record in records] == [2 * (step - 1) for step in range(5, STEPS + 1)]
    assert forked.losses() != {s: loss for s, loss in undisturbed.losses().items() if s > 4}


def test_other_data_without_a_fork_is_refused(forked: Training) -> None:
    outcomes = forked.go()
    assert {o.status for o in outcomes} == {"refused"}
    assert "is not the one that step-4 was trained on; restore it, or fork the run (xgen fork)" in outcomes[0].reason
