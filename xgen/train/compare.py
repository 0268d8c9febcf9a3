"""Whether two checkpoints are equal in every entry, random states included: tensors bit by bit, the rest by value."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save


def compare_checkpoints(one: Path, other: Path) -> tuple[int, list[str]]:
    """Number of entries of the first, and the names of those that differ or that only one has."""
    first, second = _read(one), _read(other)
    differing = [
        name for name in sorted(first.keys() | second.keys())
        if name not in first or name not in second or not _equal(first[name], second[name])
    ]  # fmt: skip
    return len(first), differing


def _read(folder: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "whole.pt"
        dcp_to_torch_save(folder, file)
        whole = dict(_flat(torch.load(file, weights_only=False), ""))
    for rng in sorted(folder.glob("rng.*.pt")):
        whole |= _flat(torch.load(rng, weights_only=True), f"/{rng.name}")
    return whole


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}/{key}")
    elif isinstance(value, tuple):
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{name}/{number}")
    else:
        yield name, value


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return bool(one == other)
