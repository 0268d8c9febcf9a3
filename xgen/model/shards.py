"""Safetensors files written one tensor at a time, in shards with an index as transformers reads them.

The safetensors package writes a file from tensors that are all in memory; its format is a header and then their bytes
(https://github.com/huggingface/safetensors), so that a model of any size passes through with one tensor held at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Self

import torch

from xgen.model.hf import INDEX, SINGLE

MAX_SHARD_BYTES = 5 * 10**9
_DTYPES = {torch.bfloat16: "BF16", torch.float32: "F32"}


def write_shards(
    folder: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    read: Callable[[str], torch.Tensor],
    max_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write all tensors in the order of `shapes`; `read` gives each once, of that shape, when it is due."""
    with ShardFiles(folder, shapes, dtype, max_bytes) as files:
        for name in shapes:
            files.write(name, read(name))


class ShardFiles:
    """The files, open until each tensor of `shapes` is written, in any order."""

    def __init__(
        self,
        folder: Path,
        shapes: Mapping[str, tuple[int, ...]],
        dtype: torch.dtype,
        max_bytes: int = MAX_SHARD_BYTES,
    ) -> None:
        self._dtype, self._left = dtype, dict(shapes)
        sizes = {name: math.prod(shape) * dtype.itemsize for name, shape in shapes.items()}
        shards = plan_shards(sizes, max_bytes)
        files = [SINGLE] if len(shards) == 1 else [
            f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)
        ]  # fmt: skip
        self._files: list[BinaryIO] = []
        self._places: dict[str, tuple[BinaryIO, int]] = {}
        for file, names in zip(files, shards, strict=True):
            out = (folder / file).open("wb")
            self._files.append(out)
            offset = out.write(_header({name: shapes[name] for name in names}, dtype))
            for name in names:
                self._places[name] = (out, offset)
                offset += sizes[name]
        if len(shards) > 1:
            weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
            index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
            (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Each once, of its shape, rounded to the files' dtype."""
        assert tuple(tensor.shape) == self._left.pop(name), name
        out, offset = self._places[name]
        out.seek(offset)
        out.write(tensor.detach().to("cpu", self._dtype).contiguous().view(torch.uint8).numpy().data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for out in self._files:
            out.close()
        assert error or not self._left, f"never written: {sorted(self._left)[:3]}"


def plan_shards(sizes: Mapping[str, int], max_bytes: int) -> list[list[str]]:
    """Which tensors are together in a file, in order; one that is larger than a shard has a file of its own."""
    shards: list[list[str]] = [[]]
    room = max_bytes
    for name, size in sizes.items():
        if size > room and shards[-1]:
            shards.append([])
            room = max_bytes
        shards[-1].append(name)
        room -= size
    return shards


def _header(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": _DTYPES[dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text
