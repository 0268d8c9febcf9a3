"""Stages: each goes on where the one before ended, in weights, optimizer, schedule and data."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.train.forked import Training
from xgen.runs import RunDir
from xgen.spec import Place, Pretrain, load_resolved
from xgen.train.manifest import Manifest

STAGES: list[dict[str, Any]] = [
    {"name": "broad", "tokens": 6 * 256, "seq_len": 64, "global_batch": 256, "lr": {"peak": 1e-2, "warmup": 2}},
    {
        "name": "anneal", "tokens": 4 * 256, "seq_len": 64, "global_batch": 256, "mixture": "sharp",
        "lr": {"shape": "linear", "to": 1e-3},
    },
    {
        "name": "long", "tokens": 4 * 512, "seq_len": 256, "global_batch": 512, "mixture": "sharp",
        "rope_theta": 1e5, "lr": {"peak": 2e-3, "warmup": 2, "shape": "cosine", "to": 1e-4},
    },
]  # fmt: skip
MIXTURES = {"broad": {"code": 1, "literature": 1}, "sharp": {"code": 1, "reference": 3}}


@pytest.fixture
def staged(_warm: None, tmp_path: Path) -> Training:
    training = Training(RunDir(tmp_path / "nano-aaaaaa"))
    stages = deepcopy(STAGES)
    stages[0]["mixture"] = "broad"
    training.change("stages", stages)
    training.change("data", "mixtures", MIXTURES)
    training.change("checkpoint", {"every": 2, "keep": 9, "mode": "sync"})
    return training


def _job(training: Training) -> Pretrain:
    job = load_resolved(training.run.spec_file)
    assert isinstance(job, Pretrain)
    return job


def _records(training: Training) -> dict[int, dict[str, Any]]:
    lines = (training.run.metrics_dir / "steps.jsonl").read_text().splitlines()
    return {record["step"]: record for record in map(json.loads, lines)}


def _go(training: Training, stage: int, **how: Any) -> str:
    training.stage = stage
    (status,) = {outcome.status for outcome in training.go(**how)}
    return status


def test_every_stage_goes_on_where_the_one_before_ended(staged: Training) -> None:
    assert [_go(staged, stage) for stage in range(3)] == ["finished"] * 3
    records, places = _records(staged), _job(staged).places
    assert [p.last_step for p in places] == [6, 10, 14]
    assert sorted(records) == list(range(1, 15))
    for step, record in records.items():
        place = next(p for p in places if step <= p.last_step)
        assert record["stage"] == place.stage.name
        assert record["lr"] == pytest.approx(place.learning_rate(step), rel=1e-12)
        assert record["tokens"] == place.tokens_at(step)
    assert records[7]["lr"] == records[6]["lr"]  # the decay begins where the stable stage ended
    assert records[14]["tokens"] == 10 * 256 + 4 * 512
    # Weights and moments carried over: the first loss of a stage is near the last one, not that of a new model.
    assert records[7]["loss"] < records[1]["loss"] - 0.1
    manifest = Manifest.read(staged.run.checkpoints_dir / "step-14")
    assert (manifest.tokens, manifest.next_sample) == (10 * 256 + 4 * 512, 8)


def test_the_last_checkpoint_of_every_stage_stays(staged: Training) -> None:
    staged.change("checkpoint", {"every": 1, "keep": 2, "mode": "sync"})
    assert [_go(staged, stage) for stage in range(3)] == ["finished"] * 3
    assert staged.run.checkpoint_steps() == [6, 10, 13, 14]


def test_a_stop_in_every_stage_changes_no_bit(staged: Training, tmp_path: Path) -> None:
    for stage in range(3):
        assert _go(staged, stage) == "finished"
    other = Training(RunDir(tmp_path / "nano-bbbbbb"))
    other.run.spec_file.write_text(staged.run.spec_file.read_text())
    for stage, step in enumerate((3, 8, 12)):
        assert _go(other, stage, during=other.signal_at(step, rank=1)) == "stopped"
        assert _go(other, stage) == "finished"
    assert other.losses() == staged.losses()
    from xgen.train.compare import compare_checkpoints

    assert compare_checkpoints(other.run.checkpoints_dir / "step-14", staged.run.checkpoints_dir / "step-14")[1] == []


def test_text_that_two_stages_share_goes_on_and_does_not_come_again(staged: Training) -> None:
    from xgen.data import samples_of

    job = _job(staged)
    first, second = (samples_of(job, stage).mixture.components for stage in (0, 1))  # type: ignore[union-attr]
    taken = dict(zip((c.name for c in first), samples_of(job, 0).mixture.quotas(6 * 256), strict=True))  # type: ignore[union-attr]
    assert {c.name: c.begin for c in second} == {"code": taken["code"], "reference": 0}


def test_a_stage_is_refused_before_the_one_before_it_is_done(staged: Training) -> None:
    assert _go(staged, 0, during=staged.signal_at(2, rank=0)) == "stopped"
    staged.stage = 1
    outcomes = staged.go()
    assert {o.status for o in outcomes} == {"refused"}
    assert "stage anneal is steps 7 to 10, and step-" in outcomes[0].reason
    assert "goes on in stage broad" in outcomes[0].reason


def test_a_later_stage_without_any_checkpoint_is_refused(staged: Training) -> None:
    staged.stage = 2
    outcomes = staged.go()
    assert {o.status for o in outcomes} == {"refused"}
    assert "stage long goes on from step 10" in outcomes[0].reason


@pytest.mark.parametrize(("shape", "middle"), [("linear", 0.55), ("cosine", 0.55), ("sqrt", 1 - 0.9 * 0.5**0.5)])
def test_the_rate_of_each_shape(shape: str, middle: float) -> None:
    job = Pretrain.model_validate(
        {
            "kind": "pretrain", "name": "n", "resources": {"time": "1m"}, "model": "tiny", "data": {"store": "s"},
            "stages": [
                {"name": "a", "tokens": 100, "seq_len": 1, "global_batch": 1, "lr": {"peak": 1.0, "warmup": 10}},
                {"name": "b", "tokens": 100, "lr": {"shape": shape, "to": 0.1}},
                {"name": "c", "tokens": 10, "lr": {"peak": 0.2, "warmup": 5}},
            ],
        }
    )  # fmt: skip
    a, b, c = job.places
    assert [a.learning_rate(step) for step in (1, 5, 10, 100)] == [0.1, 0.5, 1.0, 1.0]
    assert (b.learning_rate(101), b.learning_rate(151)) == (1.0, pytest.approx(middle))
    assert c.learning_rate(201) == pytest.approx(0.12)
    assert [c.learning_rate(step) for step in (205, 210)] == [0.2, 0.2]


def test_the_rate_is_torchtitans(_warm: None) -> None:
    import torch
    from torchtitan.components.optimizer import LRSchedulersContainer

    lr = {"peak": 3e-3, "warmup": 10, "shape": "cosine", "to": 3e-4}
    place: Place = Pretrain.model_validate(
        {
            "kind": "pretrain", "name": "n", "resources": {"time": "1m"}, "model": "tiny", "data": {"store": "s"},
            "stages": [{"name": "a", "tokens": 79, "seq_len": 1, "global_batch": 1, "lr": lr}],
        }
    ).places[0]  # fmt: skip
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-3)
    titan = LRSchedulersContainer.Config(
        warmup_steps=10, total_steps=79, decay_type="cosine", min_lr_factor=3e-4 / 3e-3
    ).build(optimizers=[optimizer], training_steps=79)
    for step in range(1, 80):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(place.learning_rate(step), rel=1e-12)
        optimizer.step()
        titan.step()


def test_the_losses_of_every_stage_at_every_length(staged: Training) -> None:
    from xgen.train.lengths import Cell, loss_matrix

    staged.change("validation", {"store": str(ROOT / ".cache/tiny-store"), "every": 10, "tokens": 2048})
    for stage in range(3):
        assert _go(staged, stage) == "finished"
    told: list[Cell] = []
    cells = loss_matrix(staged.run, _job(staged), [64, 256], 2048, told.append)
    assert cells == told
    assert [(c.stage, c.step, c.seq_len) for c in cells] == [
        (stage, step, length) for stage, step in (("broad", 6), ("anneal", 10), ("long", 14)) for length in (64, 256)
    ]
    # The same as the training's own validation says of the same checkpoint.
    lines = (staged.run.metrics_dir / "validation.jsonl").read_text().splitlines()
    own = {record["step"]: record for record in map(json.loads, lines)}
    for cell in cells:
        if cell.seq_len == own[cell.step]["seq_len"]:
            for name, domain in cell.domains.items():
                assert domain.loss == pytest.approx(own[cell.step]["domains"][name]["loss"], rel=1e-5)
                assert domain.tokens == own[cell.step]["domains"][name]["tokens"]
