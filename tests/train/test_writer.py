"""The writer process on its own: what it writes, what it survives, when it ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xxhash

from xgen.train.arena import Arena
from xgen.train.manifest import Manifest, verify
from xgen.train.writer import Writer, report_for_writer

CONTENT = os.urandom(1 << 20) * 20


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena()
    arena.reserve(len(CONTENT))
    arena.put(0, CONTENT)
    yield arena
    arena.close()


@pytest.fixture
def writer(arena: Arena) -> Iterator[Writer]:
    writer = Writer(arena.fd)
    yield writer
    writer.kill()


def order(folder: Path, world_size: int = 1, token: int = 1) -> dict[str, Any]:
    manifest = {
        "step": 4, "tokens": 1, "next_sample": 1, "world_size": world_size, "data": "", "torch": "", "torchtitan": "",
    }  # fmt: skip
    return {
        "step": 4, "token": token, "rank": 0, "world_size": world_size, "building": str(folder / ".step-4.1.tmp"),
        "files": [
            {"name": "a", "offset": 0, "size": 19 << 20}, {"name": "b", "offset": 5, "size": 0},
            {"name": "c", "offset": 5, "size": 1000},
        ],
        "publish": {"final": str(folder / "step-4"), "manifest": manifest},
    }  # fmt: skip


def answer(writer: Writer) -> str:
    deadline = time.monotonic() + 30
    while (said := writer.answer()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return said


def assert_published(folder: Path) -> None:
    manifest = Manifest.read(folder / "step-4")
    assert [entry.name for entry in manifest.files] == ["a", "b", "c"]
    for entry in manifest.files:
        verify(folder / "step-4", entry)
    assert (folder / "step-4" / "a").read_bytes() == CONTENT[: 19 << 20]
    assert manifest.files[2].checksum == f"xxh3_128:{xxhash.xxh3_128_hexdigest(CONTENT[5:1005])}"
    assert [path.name for path in folder.iterdir()] == ["step-4"]


def test_publishes_what_is_in_the_arena(writer: Writer, tmp_path: Path) -> None:
    writer.save(order(tmp_path))
    assert answer(writer) == ""
    assert writer.answer() is None
    assert_published(tmp_path)


def test_signals_of_a_stop_do_not_end_it(writer: Writer, tmp_path: Path) -> None:
    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):  # also while it starts
        os.kill(writer.pid, number)
    writer.save(order(tmp_path))
    os.kill(writer.pid, signal.SIGTERM)
    assert answer(writer) == ""


def test_finishes_its_order_when_nobody_is_left_to_hear_of_it(arena: Arena, writer: Writer, tmp_path: Path) -> None:
    os.kill(writer.pid, signal.SIGSTOP)
    writer.save(order(tmp_path))
    process = writer._process
    assert process and process.stdin and process.stdout
    process.stdin.close()
    process.stdout.close()
    os.kill(writer.pid, signal.SIGCONT)
    assert process.wait(30) == 0
    assert_published(tmp_path)


def test_killed_one_says_so_and_the_next_order_starts_another(writer: Writer, tmp_path: Path) -> None:
    os.kill(writer.pid, signal.SIGSTOP)
    writer.save(order(tmp_path))
    first = writer.pid
    os.kill(first, signal.SIGKILL)
    assert answer(writer) == "the writer process was killed by signal 9"
    writer.save(order(tmp_path))
    assert writer.pid != first
    assert answer(writer) == ""
    assert_published(tmp_path)


def test_error_of_another_rank_is_the_error_of_the_checkpoint(writer: Writer, tmp_path: Path) -> None:
    writer.save(order(tmp_path, world_size=2, token=2))
    report_for_writer(tmp_path / ".step-4.1.tmp", 1, 1, "of an earlier try")
    time.sleep(0.2)
    assert writer.answer() is None
    report_for_writer(tmp_path / ".step-4.1.tmp", 1, 2, "rank 1: no room")
    assert answer(writer) == "rank 1: no room"
    assert list(tmp_path.iterdir()) == []


def test_rank_that_could_not_write_why_is_heard(writer: Writer, tmp_path: Path) -> None:
    writer.save(order(tmp_path, world_size=2))
    while not (tmp_path / ".step-4.1.tmp").exists():
        time.sleep(0.01)
    (tmp_path / ".step-4.1.tmp" / "failed.1").touch()
    assert answer(writer) == "rank 1: could not write, and could not write why"


def test_step_that_a_dead_attempt_published_meanwhile_is_replaced(writer: Writer, tmp_path: Path) -> None:
    (tmp_path / "step-4").mkdir()
    (tmp_path / "step-4" / "manifest.json").write_text("theirs")
    writer.save(order(tmp_path))
    assert answer(writer) == ""
    assert_published(tmp_path)


def test_folder_that_cannot_be_made_is_named(writer: Writer, tmp_path: Path) -> None:
    (tmp_path / ".step-4.1.tmp").write_text("")
    writer.save(order(tmp_path))
    assert "rank 0: [Errno 17] File exists" in answer(writer)


def test_deletes_in_turn(writer: Writer, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "inner").mkdir(parents=True)
    writer.delete([tmp_path / "one", tmp_path / "two", tmp_path / "three"])
    writer.save(order(tmp_path))
    assert answer(writer) == ""
    assert_published(tmp_path)
