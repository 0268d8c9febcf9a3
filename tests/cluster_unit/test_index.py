"""The index of runs that have ended: it saves reading, and never says what is no longer so."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cluster_unit.test_status import tell
from xgen.cluster.index import Statuses, statuses
from xgen.cluster.slurm import QueueRow
from xgen.cluster.status import QueueView
from xgen.runs import EventWriter, RunDir


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three runs: two have finished, one trains."""
    for name in ("done-aaaaaa", "done-bbbbbb", "live-cccccc"):
        run = RunDir(tmp_path / "runs" / name)
        run.create()
        run.spec_file.touch()
        EventWriter(run, "client", 0, "7").write("queued")
        tell(run, "started")
        if name.startswith("done"):
            tell(run, "finished")
    return tmp_path / "runs"


class Queue:
    """What squeue says; remembers of which runs it was asked."""

    def __init__(self, *names: str) -> None:
        self.jobs = {name: QueueRow("9", name, "RUNNING", "None", "gpu", "n1", "N/A", "0") for name in names}
        self.asked: list[list[str]] = []

    def __call__(self, runs: list[RunDir]) -> QueueView:
        self.asked.append(sorted(run.name for run in runs))
        return QueueView(self.jobs)


def states(found: Statuses) -> dict[str, str]:
    return {row.name: row.state for row in found.rows}


ALL = {"done-aaaaaa": "finished", "done-bbbbbb": "finished", "live-cccccc": "running"}


def test_the_events_of_what_has_ended_are_not_read_again(root: Path, tmp_path: Path) -> None:
    queue, index = Queue("live-cccccc"), tmp_path / "cache" / "index.sqlite"
    assert states(statuses(root, queue, index)) == ALL
    (root / "done-aaaaaa/events/host.jsonl").unlink()  # nobody would know any more
    assert states(statuses(root, queue, index)) == ALL
    assert queue.asked == [sorted(ALL), ["live-cccccc"]]
    index.unlink()
    assert states(statuses(root, queue, index))["done-aaaaaa"] == "lost"


def test_a_run_that_a_person_resumes_is_read_again(root: Path, tmp_path: Path) -> None:
    index = tmp_path / "index.sqlite"
    statuses(root, Queue("live-cccccc"), index)
    EventWriter(RunDir(root / "done-bbbbbb"), "client", 1, "12").write("queued")
    found = statuses(root, Queue("live-cccccc", "done-bbbbbb"), index)
    assert states(found)["done-bbbbbb"] == "running"


def test_a_run_that_the_queue_has_a_job_of_is_read_again(root: Path, tmp_path: Path) -> None:
    index = tmp_path / "index.sqlite"
    statuses(root, Queue("live-cccccc"), index)
    (root / "done-bbbbbb/events/host.jsonl").unlink()
    assert states(statuses(root, Queue("live-cccccc", "done-bbbbbb"), index))["done-bbbbbb"] == "running"


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(200)])
def test_an_index_that_is_broken_is_made_anew(root: Path, tmp_path: Path, content: bytes) -> None:
    index, queue = tmp_path / "index.sqlite", Queue("live-cccccc")
    index.write_bytes(content)
    for _ in range(3):
        assert states(statuses(root, queue, index)) == ALL
    assert queue.asked[-1] == ["live-cccccc"]


def test_without_a_place_for_it_all_is_read_each_time(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    queue = Queue("live-cccccc")
    for _ in range(2):
        assert states(statuses(root, queue, tmp_path / "file" / "index.sqlite")) == ALL
    assert queue.asked == [sorted(ALL)] * 2


def test_of_those_that_have_ended_only_the_newest_are_listed_and_of_the_others_all(root: Path, tmp_path: Path) -> None:
    for name, age in (("live-cccccc", 3), ("done-aaaaaa", 2), ("done-bbbbbb", 1)):
        os.utime(root / name / "spec.yaml", (1e9 - age, 1e9 - age))
    for _ in range(2):  # read, and remembered
        found = statuses(root, Queue("live-cccccc"), tmp_path / "index.sqlite", newest=1)
        assert [row.name for row in found.rows] == ["live-cccccc", "done-bbbbbb"]
        assert found.num_left_out == 1


def test_what_another_version_remembered_is_read_again(root: Path, tmp_path: Path) -> None:
    index = tmp_path / "index.sqlite"
    statuses(root, Queue("live-cccccc"), index)
    with closing(sqlite3.connect(index)) as known, known:
        known.execute("""update statuses_1 set text = '{"name": "x", "colour": "red"}'""")
    assert states(statuses(root, Queue("live-cccccc"), index)) == ALL


def test_a_run_that_was_removed_is_listed_no_longer(root: Path, tmp_path: Path) -> None:
    index = tmp_path / "index.sqlite"
    statuses(root, Queue("live-cccccc"), index)
    shutil.rmtree(root / "done-aaaaaa")
    assert list(states(statuses(root, Queue("live-cccccc"), index))) == ["done-bbbbbb", "live-cccccc"]
