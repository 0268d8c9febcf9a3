"""steps.jsonl holds whole lines only, whatever happened to the disk or to the attempt before."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from xgen.train import records
from xgen.train.records import RecordFile
from xgen.train.steps import StepRecord


def record(step: int) -> StepRecord:
    return StepRecord(step, 2.5, (2.5).hex(), 1.0, 1e-3, step * 256, 0.25)


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_loss_is_recorded_to_the_last_bit(tmp_path: Path) -> None:
    loss = 0.1 + 0.2
    file = RecordFile(tmp_path / "steps.jsonl")
    file.append(StepRecord(1, loss, loss.hex(), 1.0, 1e-3, 256, 0.25))
    file.close()
    line = json.loads((tmp_path / "steps.jsonl").read_text())
    assert float.fromhex(line["loss_hex"]) == line["loss"] == loss


@pytest.mark.parametrize("torn", ['{"step": 2, "lo', "x" * 5000])
def test_line_torn_by_a_dead_node_is_cut_and_the_next_attempt_appends(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "steps.jsonl"
    first = RecordFile(path)
    first.append(record(1))
    first.close()
    whole = path.read_text()
    path.write_text(whole + torn)
    second = RecordFile(path)
    second.append(record(2))
    second.close()
    assert steps(path) == [1, 2]


def test_line_that_does_not_fit_leaves_no_part_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "steps.jsonl"
    file = RecordFile(path)
    file.append(record(1))
    with monkeypatch.context() as full:
        write = os.write
        full.setattr(os, "write", lambda fd, line: write(fd, line[:20]))  # what a disk does that has 20 bytes left
        file.append(record(2))
        file.append(record(3))
    file.append(record(4))
    file.close()
    assert steps(path) == [1, 2, 3, 4]
    assert capfd.readouterr().err.count("training goes on") == 1


def test_records_that_wait_for_room_are_bounded_and_those_given_up_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "steps.jsonl"
    file = RecordFile(path)
    monkeypatch.setattr(records, "_MOST_WAITING", 1000)
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda *_: 0)
        for step in range(1, 51):
            file.append(record(step))
    file.append(record(51))
    written = steps(path)
    assert written == list(range(52 - len(written), 52))
    assert 1 < len(written) < 10
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda *_: 0)
        file.append(record(52))
        file.close()
    assert f"{52 - len(written):,} records were lost" in capfd.readouterr().err
