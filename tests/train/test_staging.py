"""What is staged is what torch.distributed.checkpoint itself would have written, to its own readers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from xgen.train.arena import Arena
from xgen.train.staging import Stager


def write_out(arena: Arena, stager: Stager, folder: Path) -> Path:
    folder.mkdir()
    for file in stager.files:
        (folder / file.name).write_bytes(os.pread(arena.fd, file.size, file.offset))
    return folder


def whole(folder: Path) -> dict[str, Any]:
    file = folder.with_suffix(".pt")
    dcp_to_torch_save(folder, file)
    read: dict[str, Any] = torch.load(file, weights_only=False)
    return read


def state() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    big = torch.randn(300, 200, generator=generator)
    return {
        "float32": big,
        "transposed": big.T,
        "part": big[10:20, 5:7],
        "parameter": torch.nn.Parameter(big.clone()),
        "bfloat16": big.bfloat16(),
        "float8": big.to(torch.float8_e4m3fn),
        "complex": torch.complex(big, big),
        "int64": torch.arange(7),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "nested": {"list": [torch.ones(3), torch.zeros(3)], "text": "x", "number": 5},
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, torch.Tensor):
        bits = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)
    return bool(one == other)


@pytest.mark.filterwarnings("ignore")
def test_staged_state_reads_as_what_the_stock_writer_writes(tmp_path: Path) -> None:
    stock, arena = state(), Arena()
    dcp.save(stock, checkpoint_id=tmp_path / "stock", no_dist=True)
    stager = Stager(arena, 0)
    dcp.save(stock, storage_writer=stager, no_dist=True)
    ours = whole(write_out(arena, stager, tmp_path / "ours"))
    assert same(ours, whole(tmp_path / "stock"))
    assert same(ours["nested"], stock["nested"])
    arena.close()


@pytest.mark.filterwarnings("ignore")
def test_second_save_has_the_new_values_and_the_first_kept_none_of_the_live_ones(tmp_path: Path) -> None:
    arena, live = Arena(), state()
    stager = Stager(arena, 0)
    dcp.save(live, storage_writer=stager, no_dist=True, planner=stager.planner())
    live["float32"].data.fill_(7)
    first = whole(write_out(arena, stager, tmp_path / "first"))
    assert same(first["float32"], state()["float32"])
    live["more"] = torch.ones(1000, 100)  # the arena grows, the cached plan does not hold
    dcp.save(live, storage_writer=stager, no_dist=True, planner=stager.planner())
    second = whole(write_out(arena, stager, tmp_path / "second"))
    assert second["float32"].eq(7).all()
    assert second["more"].eq(1).all()
    assert same(second["bfloat16"], state()["bfloat16"])
    arena.close()


def test_arena_keeps_its_content_when_it_grows() -> None:
    arena = Arena()
    arena.reserve(10)
    arena.put(0, b"0123456789")
    arena.reserve(200 << 20)
    assert os.pread(arena.fd, 10, 0) == b"0123456789"
    arena.put((200 << 20) - 3, b"end")
    assert os.pread(arena.fd, 3, (200 << 20) - 3) == b"end"
    arena.close()


def test_memory_that_was_prepared_ahead_is_used_and_too_little_of_it_does_no_harm() -> None:
    from xgen.train.arena import Arena

    for ahead in (0, 1 << 20, 200 << 20):
        arena = Arena()
        arena.prepare(ahead)
        arena.reserve(100 << 20)
        assert os.fstat(arena.fd).st_size >= max(ahead, 100 << 20)
        arena.put((100 << 20) - 3, b"end")
        assert os.pread(arena.fd, 3, (100 << 20) - 3) == b"end"
        arena.close()
