"""Held-out loss: the same whoever computes it, and without a trace in the training."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any, cast

import pytest

from tests.conftest import ROOT
from tests.train.forked import Training
from xgen.runs import RunDir, read_events
from xgen.train.validation import bin_edges

STORE = str(ROOT / ".cache/tiny-store")


def _training(folder: Path, name: str, world_size: int = 2, **parallelism: int) -> Training:
    training = Training(RunDir(folder / f"{name}-aaaaaa"), world_size)
    training.change("resources", "gpus_per_node", world_size)
    training.change("model", "num_kv_heads", 2)
    training.change("stages", 0, "seq_len", 256)
    training.change("stages", 0, "global_batch", 512)
    training.change("stages", 0, "tokens", 4 * 512)
    training.change("stages", 0, "parallelism", parallelism)
    return training


def _validations(training: Training) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (training.run.metrics_dir / "validation.jsonl").read_text().splitlines()]


LAYOUTS: list[tuple[int, dict[str, int]]] = [(1, {}), (2, {"fsdp": 2}), (2, {"cp": 2}), (2, {"tp": 2})]


def test_it_is_the_same_in_every_layout_and_changes_no_step(_warm: None, tmp_path: Path) -> None:
    begun = _training(tmp_path, "begun", 1)
    begun.change("stages", 0, "tokens", 2 * 512)
    begun.go()
    totals = []
    for world_size, parallelism in LAYOUTS:
        losses = []
        for validation in (None, {"store": STORE, "every": 4, "tokens": 5 * 256}):
            name = f"n{world_size}{''.join(parallelism)}{bool(validation)}".lower()
            training = _training(tmp_path, name, world_size, **parallelism)
            training.change("validation", validation)
            shutil.copytree(begun.run.checkpoints_dir, training.run.checkpoints_dir, dirs_exist_ok=True)
            assert {o.status for o in training.go()} == {"finished"}, training._log()
            losses.append(training.losses())
        assert losses[0] == losses[1]
        (found,) = _validations(training)
        assert (found["step"], found["stage"], set(found["domains"])) == (
            4,
            "only",
            {"code", "literature", "reference"},
        )
        for domain in found["domains"].values():
            assert 1200 < domain["tokens"] <= 1280  # the last token of a document predicts nothing
            assert list(domain["by_position"]) == ["0", "16", "32", "64", "128"]
        totals.append([(domain["loss"], domain["tokens"]) for domain in found["domains"].values()])
    for total in totals[1:]:  # five samples, also on two ranks
        assert [tokens for _, tokens in total] == [tokens for _, tokens in totals[0]]
        assert [loss for loss, _ in total] == pytest.approx([loss for loss, _ in totals[0]], abs=1e-3)


def test_a_stop_does_not_wait_for_it_and_the_next_attempt_has_the_last_one(_warm: None, tmp_path: Path) -> None:
    training = _training(tmp_path, "stopped")
    training.change("validation", {"store": STORE, "every": 100, "tokens": 4096})
    batches = tmp_path / "batches"

    def stop_in_it(rank: int) -> None:
        from xgen.data import PackedSamples

        batch = PackedSamples.batch

        def counting(self: PackedSamples, start: int, count: int) -> Any:
            if self.mixture.components[0].name.startswith("held-out"):
                with (batches.with_suffix(f".{rank}")).open("a") as file:
                    print(start, file=file)
                os.kill(os.getpid(), signal.SIGUSR2)
            return batch(self, start, count)

        PackedSamples.batch = counting  # type: ignore[method-assign]

    assert {(o.status, o.step) for o in training.go(in_rank=stop_in_it)} == {("stopped", 4)}
    assert [batches.with_suffix(f".{rank}").read_text().split() for rank in (0, 1)] == [["0", "2"], ["1", "3"]]
    assert _validations(training) == []
    (ended,) = [event for event in read_events(training.run) if event.event == "validation_end"]
    assert ended.reason == "told to stop"
    assert {o.status for o in training.go()} == {"finished"}
    assert [line["step"] for line in _validations(training)] == [4]
    assert training.steps() == [1, 2, 3, 4]


def test_the_bins_double_and_cover_the_sequence() -> None:
    assert bin_edges(4096) == [0, 256, 512, 1024, 2048, 4096]


def test_a_store_that_is_not_there_is_refused(_warm: None, tmp_path: Path) -> None:
    training = _training(tmp_path, "absent")
    training.change("validation", {"store": str(tmp_path / "absent")})
    outcomes = training.go()
    assert {o.status for o in outcomes} == {"refused"}
    assert str(tmp_path / "absent") in outcomes[0].reason


def test_tensorboard_has_each_step_once_after_a_kill_and_a_resume(_warm: None, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    training = _training(tmp_path, "board")
    training.change("sinks", {"tensorboard": True})

    def killed(pids: list[int]) -> None:
        training.wait_for_step(3)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    training.go(during=killed, may_die=True)
    assert {o.status for o in training.go()} == {"finished"}
    assert len(training.steps()) > len(set(training.steps()))  # some had to be done again
    board = EventAccumulator(str(training.run.metrics_dir / "tensorboard"))
    board.Reload()
    found = [(event.step, event.value) for event in board.Scalars("train/loss")]
    assert found == [(step, pytest.approx(float.fromhex(loss), rel=1e-6)) for step, loss in training.losses().items()]


def test_a_slow_rank_is_named(_warm: None, tmp_path: Path) -> None:
    training = _training(tmp_path, "slow", 2)
    training.change("straggler_every", 2)

    def slow(rank: int) -> None:
        from xgen.train.straggler import Straggler

        if rank == 1:
            Straggler._time = lambda _: 2.0  # type: ignore[method-assign, assignment]
        else:
            Straggler._time = lambda _: 1.0  # type: ignore[method-assign, assignment]

    training.go(in_rank=slow)
    said = [event for event in read_events(training.run) if event.event == "straggler"]
    assert [event.step for event in said] == [2, 4]
    assert (said[0].reason or "").startswith("rank 1 takes 1.33 times as long as the median rank")
    assert [(event.rank, round(event.ratio or 0, 2)) for event in said] == [(1, 1.33)] * 2
    assert {event.nodes for event in said} == {os.uname().nodename.partition(".")[0]}


def test_every_rank_times_itself(_warm: None, tmp_path: Path) -> None:
    import torch

    from xgen.train.straggler import Straggler

    straggler = Straggler(cast("Any", None), torch.device("cpu"), "n1")
    once = straggler._time()
    straggler._products *= 100
    assert 0 < once < straggler._time() < 10
