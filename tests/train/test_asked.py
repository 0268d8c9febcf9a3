"""A profile that a person asks for: of the same steps on all ranks, and of a training that computes the same."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.train.conftest import STEPS, Training
from xgen.runs import RunDir, StopFlag, TaskContext
from xgen.runs.asked import new_request, profile_file, profile_results
from xgen.train.asked import Profiling


def test_a_profile_is_of_the_same_steps_on_all_ranks_and_changes_no_bit(
    training: Training, undisturbed: Training
) -> None:
    from xgen.train.compare import compare_checkpoints

    request = new_request(1, 2, (0, 1), memory=True)
    request.write(training.run)  # there before the first step, which begins with what the ranks agree on
    assert {o.status for o in training.go()} == {"finished"}
    found = profile_results(training.run, request)
    assert set(found) == {0, 1}
    (folder, one), (_, other) = found[0], found[1]
    assert (one.first_step, one.last_step, one.error) == (1, 2, "")
    assert (other.first_step, other.last_step, other.error) == (1, 2, "")
    assert (one.memory, one.device) == ("", "cpu")  # of a GPU, which there is none of
    events = json.loads(gzip.decompress((folder / one.trace).read_bytes()))["traceEvents"]
    names = {event.get("name") for event in events}
    assert {"step 1", "step 2", "aten::mm"} <= names
    assert "step 3" not in names
    assert one.top
    assert one.top[0].seconds >= one.top[-1].seconds > 0
    assert training.losses() == undisturbed.losses()
    folders = (t.run.checkpoints_dir / f"step-{STEPS}" for t in (training, undisturbed))
    assert compare_checkpoints(*folders)[1] == []


def test_a_snapshot_that_fails_leaves_no_record_of_each_allocation_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[object] = []
    monkeypatch.setattr(
        torch.cuda.memory, "_record_memory_history", lambda **how: kept.append(how.get("enabled", True))
    )
    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", _fails)
    # No profiler of its own: what it starts in this process no later fork would survive.
    monkeypatch.setattr(torch.profiler, "profile", lambda **_: SimpleNamespace(start=lambda: None))
    monkeypatch.setattr(Profiling, "_wait_for_device", lambda _: None)
    monkeypatch.setattr(Profiling, "_export", lambda *_: {})
    run = RunDir(tmp_path / "run-aaaaaa")
    run.create()
    request = new_request(1, 1, (0,), memory=True)
    request.write(run)
    profiling = Profiling(TaskContext(run, 1, "1", 0, 0, 1, StopFlag(), None), torch.device("cuda"))
    profiling.before_step(request.number, 1)
    profiling.after_step(1)
    (_, result) = profile_results(run, request)[0]
    assert (kept, result.memory, result.error) == ([True, None], "", "OSError: no space left")


def _fails(_: str) -> None:
    raise OSError("no space left")


def test_a_request_of_another_attempt_or_of_no_sense_costs_the_training_nothing(training: Training) -> None:
    request = new_request(7, 2, (0,), memory=False)
    request.write(training.run)
    training.change("stages", 0, "tokens", 4 * 256)

    def spoil(_pids: list[int]) -> None:
        training.wait_for_step(1)
        profile_file(training.run).write_text('{"number": "x"')

    assert {o.status for o in training.go(during=spoil)} == {"finished"}
    assert profile_results(training.run, request) == {}
    assert not (training.run.attempt_dir(1) / "profile").exists()
