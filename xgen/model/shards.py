"""Safetensors files written one tensor at a time, in shards with an index as transformers reads them.

The safetensors package writes a file from tensors that are all in memory; its format is a header and then their bytes
(https://github.com/huggingface/safetensors), so that a model of any size passes through with one tensor held at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

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
    """Write all tensors in the order of `shapes`; `read` gives each once, of that shape and dtype, when it is due."""
    sizes = {name: math.prod(shape) * dtype.itemsize for name, shape in shapes.items()}
    shards = plan_shards(sizes, max_bytes)
    files = [SINGLE] if len(shards) == 1 else [
        f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)
    ]  # fmt: skip
    for file, names in zip(files, shards, strict=True):
        with (folder / file).open("wb") as out:
            out.write(_header({name: shapes[name] for name in names}, dtype))
            for name in names:
                tensor = read(name)
                assert (tuple(tensor.shape), tensor.dtype) == (shapes[name], dtype), name
                out.write(tensor.contiguous().view(torch.uint8).numpy().data)
    if len(shards) > 1:
        weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


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
