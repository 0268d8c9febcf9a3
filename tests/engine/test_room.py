"""How many answers memory holds, and that no more of it is taken than was said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.engine.generating import SEQ_LEN, answers, engine_of, request, spec_of
from xgen.engine import room
from xgen.engine.cache import Cache
from xgen.engine.decoder import Decoder


def test_memory_is_that_of_the_tightest_cgroup(tmp_path: Path) -> None:
    assert 10**8 < room.free_memory(tmp_path) < 10**13
    (tmp_path / "memory.max").write_text("900000\n")
    (tmp_path / "memory.current").write_text("500000\n")
    assert room.free_memory(tmp_path) == 400_000
    (tmp_path / "memory.stat").write_text("anon 200000\ninactive_file 300000\n")  # of a checkpoint that was read
    assert room.free_memory(tmp_path) == 700_000
    (tmp_path / "memory.max").write_text("max\n")
    assert room.free_memory(tmp_path) > 400_000


def test_tokens_are_what_their_keys_and_values_take(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(spec_of(), SEQ_LEN, 1e4, None, torch.device("cpu"), torch.float32)
    found = []
    for free in (1 << 30, 3 << 30):
        monkeypatch.setattr(room, "free_memory", lambda free=free: free)
        found.append(room.num_tokens(decoder))
    cache = Cache(spec_of(), torch.device("cpu"), torch.float32, "")
    cache.reserve(1, 1024, 1024)
    of_token = sum(layer.nbytes for layer in cache.layers) / 1024
    assert found[1] - found[0] == pytest.approx((1 << 30) / of_token, rel=1e-3)  # half of what is free
    assert found[0] < (1 << 30) / 2 / of_token
    monkeypatch.setattr(room, "free_memory", lambda: 1000)
    assert room.num_tokens(decoder) == 0


def test_the_cache_of_an_answer_is_made_once_and_no_longer_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[tuple[int, int]] = []
    take = Cache._take

    def seen(self: Cache, num_rows: int, length: int) -> None:
        if num_rows:
            rooms.append((num_rows, length))
        take(self, num_rows, length)

    monkeypatch.setattr(Cache, "_take", seen)
    engine = engine_of(at_once=8)
    answers(engine, [request("one", 100, 150)])
    assert rooms == [(4, 256)]
