"""Where the pieces of a run lie, and that a reader never sees half a file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from xgen.runs import RUN_NAME, AttemptOutcome, RankOutcome, RunDir, list_runs, new_run_id, read_attempt_outcome
from xgen.runs import write_atomic as write


def test_the_paths_are_those_of_the_contract() -> None:
    run = RunDir(Path("/shared/runs/demo-abc234"))
    assert run.name == "demo-abc234"
    assert run.spec_file == Path("/shared/runs/demo-abc234/spec.yaml")
    assert run.code_dir == Path("/shared/runs/demo-abc234/code")
    assert run.events_dir == Path("/shared/runs/demo-abc234/events")
    assert run.attempt_dir(1) == Path("/shared/runs/demo-abc234/attempts/0001")
    assert run.attempt_dir(12345) == Path("/shared/runs/demo-abc234/attempts/12345")
    assert run.discovery_file == Path("/shared/runs/.discovery/demo-abc234.json")


def test_a_run_is_made_once(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "deep/demo-abc234")
    run.create()
    assert sorted(p.name for p in run.path.iterdir()) == ["attempts", "checkpoints", "events", "metrics"]
    with pytest.raises(FileExistsError):
        run.create()


def test_ids_are_six_letters_that_people_can_read_aloud() -> None:
    ids = {new_run_id() for _ in range(500)}
    assert len(ids) == 500
    assert all(RUN_NAME.match(f"demo-{i}") and not re.search("[0o1l]", i) for i in ids)


def test_only_complete_checkpoints_count(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "demo-abc234")
    assert run.checkpoint_steps() == []
    run.create()
    for name in ("step-10", "step-9", "step-100", ".step-11.99.tmp", "step-x", "other-3"):
        (run.checkpoints_dir / name).mkdir()
        (run.checkpoints_dir / name / "manifest.json").touch()
    (run.checkpoints_dir / "step-200").mkdir()
    assert run.checkpoint_steps() == [9, 10, 100]


def test_attempts_are_numbered_whatever_else_lies_there(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "demo-abc234")
    assert run.last_attempt() == 0
    run.create()
    (run.attempts_dir / "slurm-77.log").touch()
    (run.attempts_dir / "\u00b2").mkdir()  # a digit to isdigit(), none to int()
    assert run.last_attempt() == 0
    for number in (1, 2, 10):
        run.attempt_dir(number).mkdir()
    assert run.last_attempt() == 10


def test_runs_are_listed_oldest_first_and_half_made_ones_not_at_all(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "nowhere") == []
    for age, name in enumerate(("b-abc234", "a-abc234", "c-abc234")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "spec.yaml").touch()
        os.utime(tmp_path / name / "spec.yaml", (1000 - age, 1000 - age))
    (tmp_path / "d-abc234").mkdir()  # no spec
    (tmp_path / ".e-abc234.77.tmp").mkdir()
    (tmp_path / ".discovery").mkdir()
    assert [run.name for run in list_runs(tmp_path)] == ["c-abc234", "a-abc234", "b-abc234"]


def test_a_file_is_replaced_whole_and_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write(file, "old", mode=0o600)
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UnicodeEncodeError):
        write(file, "new\ud800")
    assert file.read_text() == "old"
    write(file, "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "new")]


def test_outcomes_of_ranks_are_in_the_words_that_the_host_looks_for(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "demo-abc234")
    run.create()
    run.attempt_dir(1).mkdir()
    RankOutcome(status="crashed", reason='a "quote"', time=1.5).write(run, 1, 3)
    text = (run.attempt_dir(1) / "outcome.3.json").read_text()
    assert text == '{"status":"crashed","reason":"a \\"quote\\"","step":null,"time":1.5}\n'


def test_no_outcome_and_a_torn_one_are_both_none(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "demo-abc234")
    run.create()
    run.attempt_dir(1).mkdir()
    assert read_attempt_outcome(run, 1) is None
    file = run.attempt_dir(1) / "outcome.json"
    for torn in (b'{"status":"stop', b'{"status":"stopped","time":1,"reason":"\xff"}', b"\0\0\0\0"):
        file.write_bytes(torn)
        assert read_attempt_outcome(run, 1) is None
    file.write_text('{"status":"stopped","reason":"","durable_step":7,"failures":0,"time":1.5,"newer":1}\n')
    assert read_attempt_outcome(run, 1) == AttemptOutcome(status="stopped", durable_step=7, time=1.5)


def test_processes_of_one_number_on_two_nodes_write_a_file_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, names = os.fsync, iter("ab")
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename=next(names)))

    def meanwhile(fd: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        write(tmp_path / "file", "b")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", meanwhile)
    write(tmp_path / "file", "a")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "a"
