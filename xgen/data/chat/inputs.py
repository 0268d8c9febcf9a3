"""The sources of a job as what there is to read: units, and what names their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

from xgen.data.chat.meta import Split
from xgen.data.errors import StoreError
from xgen.data.places import HUB, File, is_remote
from xgen.data.units import Plan, Unit, hub_files, plan_units
from xgen.spec import Preference, Sft

_BLOCK = 1 << 22


@dataclass(frozen=True)
class Input:
    """A source with what of it there is to read."""

    split: Split
    name: str
    path: str
    plan: Plan

    @property
    def folder(self) -> str:
        return f"{self.split}/{self.name}"

    @property
    def files(self) -> list[File]:
        return [*self.plan.files, *hub_files([self.path])]

    def content(self, unit: Unit, content: Mapping[str, str]) -> list[str]:
        """What names the content of a unit; of a data set that `datasets` reads that is all of its files."""
        return [content[path] for path in unit.paths] or [content[file.path] for file in self.files]


def inputs_of(job: Sft | Preference) -> list[Input]:
    """Sources in the spec's order, then the held-out ones. Raises StoreError for what is not there."""
    found = [_input("train", name, source.path) for name, source in job.data.sources.items()]
    held_out = job.validation.sources if job.validation else {}
    return found + [_input("held-out", name, path) for name, path in held_out.items()]


def read_plan(path: str) -> Plan:
    """What there is to read. Raises StoreError for what is not there, and for pages."""
    plan = plan_units([path])
    if any(piece.has_pages for unit in plan.units for piece in unit.pieces):
        fix = "name jsonl (.zst, .gz), parquet, arrow, or hf:NAME"
        raise StoreError(path, "holds pages, which are no chat data", fix)
    return plan


def files_of(inputs: Sequence[Input]) -> list[Any]:
    """What the files of each input are known by without reading them."""
    return [[one.folder, one.path if one.path.startswith(HUB) else "", one.files] for one in inputs]


def content_of(inputs: Sequence[Input]) -> dict[str, str]:
    """A hash of each file's content; of a remote one, of what its file system knows it by."""
    files = {file.path: file for one in inputs for file in one.files}
    return {path: hashed(file) if is_remote(path) else _digest(Path(path)) for path, file in files.items()}


def hashed(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _input(split: Split, name: str, path: str) -> Input:
    return Input(split, name, path, read_plan(path))


def _digest(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
