"""Records of an evaluation on disk: what was written is read, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xgen.evals.protocol import Item, Record
from xgen.evals.records import RecordWriter, num_records, read_records, step_folder, steps_of
from xgen.runs import RunDir


def record(index: int, **values: object) -> Record:
    told = {"suite": "needles", "task": "noise", "length": 4096, "score": 0.5, "tokens": 4000, "seconds": 0.125}
    return Record.model_validate({**told, "index": index, "digest": "d", **values})


def write(path: Path, *records: Record) -> None:
    with RecordWriter(path) as writer:
        for one in records:
            writer.append(one)


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.floats(0, 1), st.floats(0, 1))
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, answer: str, score: float, depth: float
) -> None:
    folder = tmp_path_factory.mktemp("records")
    written = record(1, answer=answer, score=score, depth=depth, values={"f1": score}, bins=[(0, 7, score)])
    write(folder / "0.jsonl", written)
    assert read_records(folder) == [written]


def test_a_depth_tells_one_sample_from_another(tmp_path: Path) -> None:
    write(tmp_path / "0.jsonl", record(0, depth=0.1), record(0, depth=0.2), record(0, depth=0.1))
    assert [one.item for one in read_records(tmp_path)] == [
        Item("needles", "noise", 4096, 0, 0.1),
        Item("needles", "noise", 4096, 0, 0.2),
    ]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_file_that_is_cut_anywhere_loses_the_cut_line_alone(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("records")
    file = folder / "0.jsonl"
    write(file, *(record(number, answer="é" * number) for number in range(5)))
    content = file.read_bytes()
    at = data.draw(st.integers(0, len(content)))
    file.write_bytes(content[:at])
    whole = content[:at].count(b"\n")
    assert [one.index for one in read_records(folder)] == list(range(whole))
    write(file, record(7))
    assert [one.index for one in read_records(folder)] == [*range(whole), 7]
    assert file.read_bytes().count(b"\n") == whole + 1


def test_no_evaluation_has_no_steps_and_no_records(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert steps_of(run) == []
    assert num_records(run, 0) == 0
    assert read_records(step_folder(run, 3)) == []


def test_records_of_a_shard_are_counted_over_all_checkpoints(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for step, shard, number in ((10, 0, 3), (2, 0, 1), (2, 1, 4)):
        write(step_folder(run, step) / f"{shard}.jsonl", *map(record, range(number)))
    (run.evaluation_dir / "cache").mkdir()
    assert steps_of(run) == [2, 10]
    assert [num_records(run, shard) for shard in (0, 1, 2)] == [4, 4, 0]
