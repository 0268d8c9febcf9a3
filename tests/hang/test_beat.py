"""The heartbeat of a node."""

from __future__ import annotations

import json
import time
from pathlib import Path

from xgen.hang.beat import Beat, Local, read_beats


def beat(rank: int, step: int, silent: float = 0.0) -> Beat:
    return Beat(rank, step, "train", silent, 1.5, time.time())


def test_the_first_rank_of_a_node_writes_for_all_of_them(tmp_path: Path) -> None:
    first, second = (Local(tmp_path, 3, 0, gathers=rank == 0) for rank in (0, 1))
    elsewhere = Local(tmp_path, 3, 1, gathers=True)
    assert first.heard() == ()  # it listens
    second.tell(beat(1, 17, silent=9.0))
    elsewhere.tell(beat(8, 18))
    first.tell(beat(0, 18))
    first.write(tmp_path, "g01", 3, "812")
    elsewhere.write(tmp_path, "g02", 3, "812")
    own, other = read_beats(tmp_path, 3)
    assert (own.node, [rank.rank for rank in own.ranks], own.slowest and own.slowest.rank) == ("g01", [0, 1], 1)
    assert (other.node, [rank.rank for rank in other.ranks], other.slowest) == ("g02", [8], None)
    written = json.loads((tmp_path / "metrics/heartbeats/g01.json").read_text())
    assert (written["step"], written["slowest"], written["attempt"]) == (17, 1, 3)
    assert [file.name for file in (tmp_path / "metrics/heartbeats").iterdir() if file.name.startswith(".")] == []


def test_the_ranks_of_a_node_hear_each_other_whatever_the_path_of_the_run(tmp_path: Path) -> None:
    first, second = (Local(tmp_path / ("ü" * 120), 1, 0, gathers=rank == 0) for rank in (0, 1))
    first.heard()
    second.tell(beat(1, 17))
    assert [one.rank for one in first.heard()] == [1]


def test_heartbeats_of_other_attempts_and_torn_files_are_none(tmp_path: Path) -> None:
    local = Local(tmp_path, 2, 0, gathers=True)
    local.tell(beat(0, 5))
    local.write(tmp_path, "g01", 2, "812")
    (tmp_path / "metrics/heartbeats/g02.json").write_text('{"node": "g0')
    (tmp_path / "metrics/heartbeats/g03.json").write_text('{"node": "g03", "attempt": 2, "ranks": [{"what": 1}]}')
    assert [found.node for found in read_beats(tmp_path, 2)] == ["g01"]
    assert read_beats(tmp_path, 3) == []
    assert read_beats(tmp_path / "nowhere", 3) == []


def test_what_strangers_say_and_a_missing_listener_harm_nobody(tmp_path: Path) -> None:
    alone = Local(tmp_path, 1, 0, gathers=False)
    alone.tell(beat(1, 5))  # nobody listens
    first = Local(tmp_path, 1, 0, gathers=True)
    first.heard()
    for text in (b"", b"{", b'{"rank": 7}', b"\xff" * 5000):
        alone._socket.sendto(text, first._name)
    first.tell(beat(0, 5))
    assert [one.rank for one in first.heard()] == [0]
