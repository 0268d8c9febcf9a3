"""What the flight recorder tells of a hang: which collective each rank was in."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from xgen.runs import RunDir
from xgen.runs.flight import collectives, flight_folder


def entry(number: int, state: str = "completed", record: int = 0) -> dict[str, object]:
    return {
        "record_id": record, "process_group": ("0", "default_pg"), "collective_seq_id": number, "p2p_seq_id": 0,
        "profiling_name": "nccl:all_reduce", "state": state,
        "frames": [{"filename": "/x/torch/distributed/distributed_c10d.py", "line": 1},
                   {"filename": "/x/train/trainer.py", "line": 12}],
    }  # fmt: skip


def record(run: RunDir, rank: int, content: bytes | list[dict[str, object]]) -> None:
    folder = flight_folder(run, 1) / "nccl"
    folder.mkdir(parents=True, exist_ok=True)
    content = content if isinstance(content, bytes) else pickle.dumps({"entries": content})
    (folder / f"rank_{rank}").write_bytes(content)


def test_who_waits_for_whom_is_one_line_a_group(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for rank in (0, 1, 3):
        record(run, rank, [entry(7), entry(8, "started", 1)])
    record(run, 2, [entry(7)])
    assert collectives(run, 1) == [
        "nccl group 0 default_pg: rank 2 behind, after all_reduce 7 (train/trainer.py:12); "
        "ranks 0-1,3 in all_reduce 8 (train/trainer.py:12)"
    ]
    record(run, 2, [entry(8)])
    for rank in (0, 1, 3):
        record(run, rank, [entry(8)])
    assert collectives(run, 1) == []  # nobody waits


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("content", [b"", b"\x80\x05torn", pickle.dumps(Hostile()), pickle.dumps({"entries": 7})])
def test_a_record_that_is_torn_or_hostile_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    record(RunDir(tmp_path), 0, content)
    assert collectives(RunDir(tmp_path), 1) == []
    assert not (tmp_path / "pwned").exists()
