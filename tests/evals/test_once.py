"""Work that several shards share is done by one of them; the others wait, and not for ever."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.evals.scripted import wait_for
from xgen.evals import once as module
from xgen.evals.once import alone, once
from xgen.runs import Refused


class Shards:
    """Threads that are at the same work, which ends when it is let."""

    def __init__(self, folder: Path, refused: str = "") -> None:
        self.mark, self._refused = folder / "mark", refused
        self.let, self.times, self.said = threading.Event(), 0, list[str]()

    def work(self) -> None:
        self.times += 1
        assert self.let.wait(20)
        if self._refused:
            raise Refused(self._refused)

    def come(self) -> None:
        try:
            once(self.mark, "content", self.work)
        except Refused as refused:
            self.said.append(str(refused))

    def together(self, count: int) -> None:
        threads = [threading.Thread(target=self.come) for _ in range(count)]
        for thread in threads:
            thread.start()
        wait_for(lambda: self.times)
        time.sleep(0.3)  # the others are at the lock
        self.let.set()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()


def test_one_does_it_for_all_and_for_those_who_come_later(tmp_path: Path) -> None:
    shards = Shards(tmp_path)
    shards.together(5)
    shards.come()
    assert (shards.times, shards.said) == (1, [])


def test_who_waits_is_refused_what_was_refused_meanwhile_and_who_comes_later_tries_anew(tmp_path: Path) -> None:
    shards = Shards(tmp_path, refused="it does not verify")
    shards.together(5)
    assert (shards.times, shards.said) == (1, ["it does not verify"] * 5)
    shards.come()
    assert shards.times == 2


def test_a_lock_that_a_file_server_keeps_for_a_dead_node_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LONGEST", 0.3)
    monkeypatch.setattr(module, "_TOLD_AFTER", 0.1)
    with (
        alone(tmp_path),
        pytest.raises(TimeoutError, match=rf"{tmp_path}/.lock is held by another shard .* remove that file"),
        alone(tmp_path),
    ):
        pass
    assert capsys.readouterr().out == f"another shard is at {tmp_path}; waiting for it\n"
