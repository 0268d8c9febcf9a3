"""The synchronous half of a save: torch.distributed.checkpoint plans it, and every item is copied into the arena.

The arena then holds the very bytes of the files that torch.distributed.checkpoint's own FileSystemWriter would have
written (`torch/distributed/checkpoint/filesystem.py`), so its readers read them. An entry of a tensor there is a
torch.save archive. Building one costs several copies and a checksum, so the bytes around the data are made once per
dtype and shape, and a save is one copy per tensor. The archive's own CRC of the data is then wrong; torch.load does
not check it, and the manifest's checksum covers the whole file.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import CURRENT_DCP_VERSION, _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.distributed.tensor import DTensor
from torch.futures import Future

from xgen.train.arena import Arena

_ALIGNMENT = 64  # bytes; torch.save aligns the data to it within an archive


@dataclass(frozen=True)
class StagedFile:
    """A file of the checkpoint that lies in the arena, ready to be written."""

    name: str
    offset: int  # bytes from the arena's begin
    size: int


@dataclass(frozen=True)
class _Frame:
    """What torch.save puts before and after the data of a tensor of one dtype and shape."""

    before: bytes
    after: bytes


class Stager(StorageWriter):
    """Storage of torch.distributed.checkpoint in the arena; `files` says what a save has put there."""

    def __init__(self, arena: Arena, rank: int, plans_whole: bool = True) -> None:
        """Of the ranks with the same entries one `plans_whole`: also what is no shard, and is equal on all of them."""
        super().__init__()
        self._arena, self._rank, self._plans_whole = arena, rank, plans_whole
        self._frames: dict[tuple[torch.dtype, torch.Size], _Frame] = {}
        self._end = 0
        self._num_forgotten = 0
        self.files: list[StagedFile] = []

    def planner(self) -> DefaultSavePlanner:
        """A planner that exchanges, from the second save on, only what has changed since the one before."""
        planner = _Planner(self._plans_whole)
        # torch keeps the plans in its class, under its name: a fork, or another state, would take them for its own.
        planner._cached_plans_key = f"{os.getpid()}.{id(self)}.{self._num_forgotten}"
        return planner

    def forget_plans(self) -> None:
        """After a save that failed: ranks may have got to different points of it."""
        self._num_forgotten += 1

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        pass  # torch calls it only where a checkpoint is known by a folder or a URL

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - torch's
        """Every save begins here, on every rank."""
        self.files, self._end = [], 0

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:  # noqa: ARG003 - torch's too
        return True

    @torch.no_grad()
    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Copy all items of the plan. When this returns, the arena refers to no live tensor."""
        name = f"__{self._rank}_0.distcp"
        parts = [(item, *self._frame(planner, item)) for item in plan.items]
        size = sum(_aligned(_length(frame, data)) for _, frame, data in parts)
        self._arena.reserve(size)
        results, offset = [], 0
        for item, frame, data in parts:
            length = _length(frame, data)
            if frame is None:
                assert isinstance(data, bytes)
                self._arena.put(offset, data)
            else:
                assert isinstance(data, torch.Tensor)
                self._copy(offset, frame, data)
            results.append(WriteResult(item.index, length, _StorageInfo(name, offset, length)))
            offset += _aligned(length)
        if self._arena.pinned:
            torch.cuda.synchronize()
        if results:
            self.files.append(StagedFile(name, 0, offset))
            self._end = offset
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """On the coordinator: where every entry of every rank lies."""
        metadata.version = CURRENT_DCP_VERSION
        metadata.storage_data = {result.index: result.storage_data for part in results for result in part}
        metadata.storage_meta = StorageMeta()
        self.add(".metadata", pickle.dumps(metadata))

    def add(self, name: str, content: bytes) -> None:
        """Stage a small file."""
        self._arena.reserve(self._end + len(content))
        self._arena.put(self._end, content)
        self.files.append(StagedFile(name, self._end, len(content)))
        self._end += _aligned(len(content))

    def _frame(self, planner: SavePlanner, item: WriteItem) -> tuple[_Frame | None, torch.Tensor | bytes]:
        data = planner.resolve_data(item)
        if item.type == WriteItemType.BYTE_IO:
            assert isinstance(data, io.BytesIO)
            return None, data.getvalue()
        assert isinstance(data, torch.Tensor)
        data = data.detach()
        key = (data.dtype, data.shape)
        if key not in self._frames:
            self._frames[key] = _make_frame(data.dtype, data.shape)
        return self._frames[key], data

    def _copy(self, offset: int, frame: _Frame, tensor: torch.Tensor) -> None:
        self._arena.put(offset, frame.before)
        begin = offset + len(frame.before)
        end = begin + tensor.nbytes
        if tensor.nbytes:
            place = self._arena.bytes_U8[begin:end].view(tensor.dtype).view(tensor.shape)
            place.copy_(tensor, non_blocking=self._arena.pinned)
        self._arena.put(end, frame.after)


class _Planner(DefaultSavePlanner):
    """One rank plans what is no shard. Torch's has all of them plan it, and rank 0 choose one for each entry."""

    def __init__(self, plans_whole: bool) -> None:
        super().__init__(enable_plan_caching=True)
        self._plans_whole = plans_whole

    def set_up_planner(
        self, state_dict: dict[str, Any], storage_meta: StorageMeta | None = None, is_coordinator: bool = False
    ) -> None:
        super().set_up_planner(state_dict, storage_meta, is_coordinator)
        if not self._plans_whole:
            self.state_dict = {name: value for name, value in self.state_dict.items() if isinstance(value, DTensor)}
            self.mappings = {}  # the names are told by the rank that plans all of them


def _length(frame: _Frame | None, data: torch.Tensor | bytes) -> int:
    if frame is None:
        return len(data)
    assert isinstance(data, torch.Tensor)
    return len(frame.before) + data.nbytes + len(frame.after)


def _aligned(length: int) -> int:
    return -(-length // _ALIGNMENT) * _ALIGNMENT


def _make_frame(dtype: torch.dtype, shape: torch.Size) -> _Frame:
    """Have torch.save write such a tensor sparsely, without its data, and cut what is around the gap."""
    tensor = torch.empty(shape, dtype=dtype)  # memory that nothing touches
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tensor"
        with torch.serialization.skip_data():
            torch.save(tensor, path)
        with path.open("rb") as file:
            with zipfile.ZipFile(file) as archive:
                header = archive.getinfo("tensor/data/0").header_offset
            file.seek(header)
            # PKZIP APPNOTE 4.3.7: 30 bytes, the lengths of name and extra field in the last four of them.
            name_length, extra_length = struct.unpack("<26x2H", file.read(30))
            begin = header + 30 + name_length + extra_length
            file.seek(0)
            before = file.read(begin)
            file.seek(begin + tensor.nbytes)
            return _Frame(before, file.read())
