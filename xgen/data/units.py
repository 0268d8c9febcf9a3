"""What there is to read, cut into units that are read in parallel: each becomes one part a domain, or a few."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xgen.data.errors import StoreError

Kind = Literal["lines", "parquet", "arrow", "hub"]
LINES = (".jsonl", ".jsonl.zst", ".jsonl.gz", ".json.zst", ".json.gz", ".ndjson")
HUB = "hf:"
_TAKEN = f"it takes {', '.join(LINES)}, .parquet, .arrow"
# Bytes of files: smaller ones share a unit, of a size that gives a few thousand units at most (each is a part or more),
# and many enough for all workers where there is little.
_MIN_UNIT, _MAX_UNIT, _MANY_UNITS = 4 << 20, 1 << 30, 4096
_RANGE_BYTES = 256 << 20  # of a large parquet file, uncompressed: a unit


@dataclass(frozen=True)
class Piece:
    """A file, or a part of one: row groups (parquet) or shards (hub) from `first` to before `last`; 0: to the end."""

    kind: Kind
    path: str
    first: int = 0
    last: int = 0


@dataclass(frozen=True)
class Unit:
    """What one worker reads at once, in this order."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Plan:
    """The units of some inputs, in an order that their names fix; `ignored` counts files of other kinds by suffix."""

    units: tuple[Unit, ...]
    ignored: dict[str, int]

    @property
    def files(self) -> list[str]:
        """The files that are read, in order."""
        return list(dict.fromkeys(p.path for unit in self.units for p in unit.pieces if p.kind != "hub"))


def plan_units(inputs: Sequence[str]) -> Plan:
    """Plan the reading of `inputs`: files, folders, `hf:NAME[:SPLIT]`.

    Raises StoreError for what is not there, holds nothing to read, or is of no known kind.
    """
    found: list[str | list[Path]] = []
    ignored: Counter[str] = Counter()
    for name in inputs:
        if name.startswith(HUB):
            found.append(name)
            continue
        path = Path(name)
        if not path.exists():
            raise StoreError(path, "does not exist", "name a file, a folder, or hf:NAME")
        if path.is_file() and _kind(path) is None:
            raise StoreError(path, "is of no known kind", _TAKEN)
        files = [path] if path.is_file() else _files_in(path, ignored)
        if not files:
            raise StoreError(path, "holds nothing to read", _TAKEN)
        found.append(files)
    total = sum(file.stat().st_size for item in found if not isinstance(item, str) for file in item)
    unit_bytes = min(max(total // _MANY_UNITS, _MIN_UNIT), _MAX_UNIT)
    units: list[Unit] = []
    for item in found:
        units += _hub_units(item) if isinstance(item, str) else _group(item, unit_bytes)
    return Plan(tuple(units), dict(ignored))


def open_stream(name: str) -> Any:
    """The `datasets` stream of hf:NAME[:SPLIT], NAME being a data set or a folder that `datasets` can load.

    Raises StoreError.
    """
    try:
        import datasets
    except ImportError:
        raise StoreError(name, "needs the package datasets", "pip install 'xgen[train]'") from None
    where, _, split = name.removeprefix(HUB).partition(":")
    try:
        return datasets.load_dataset(where, split=split or "train", streaming=True)
    except Exception as error:  # noqa: BLE001 - datasets raises what its readers raise
        fix = "check name and split; without network, xgen fetch it where there is one and name the folder"
        raise StoreError(name, f"cannot be read: {' '.join(str(error).split())[:200]}", fix) from None


def _files_in(folder: Path, ignored: Counter[str]) -> list[Path]:
    """The files of a folder that can be read, sorted; hidden ones are nobody's data."""
    if (splits := folder / "dataset_dict.json").is_file():
        names = json.loads(splits.read_bytes())["splits"]
        what = f"holds the splits {', '.join(names)}, which would be mixed"
        raise StoreError(folder, what, f"name one, e.g. {folder / names[0]}")
    found = []
    for path in sorted(_walk(folder, (folder.resolve(),))):
        kind = _kind(path)
        if kind is None or (kind == "arrow" and not _belongs(path)):
            ignored[path.suffix or path.name] += 1
        else:
            found.append(path)
    return found


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Files at any depth; links are followed, which `rglob` does not. Raises StoreError for one that leads nowhere."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if (real := path.resolve()) in above:
                raise StoreError(path, "is a link to a folder that it lies in", "remove the link")
            yield from _walk(path, (*above, real))
        elif path.is_file():
            yield path
        elif path.is_symlink():
            raise StoreError(path, f"is a link to {path.readlink()}, which does not exist", "mend or remove the link")


def _belongs(arrow: Path) -> bool:
    """False for what `datasets` has cached beside a saved data set, whose state.json lists its files."""
    state = arrow.with_name("state.json")
    if not state.is_file():
        return True
    return arrow.name in {file["filename"] for file in json.loads(state.read_bytes()).get("_data_files", ())}


def _kind(path: Path) -> Kind | None:
    if path.name.endswith(LINES):
        return "lines"
    return {".parquet": "parquet", ".arrow": "arrow"}.get(path.suffix)  # type: ignore[return-value]


def _group(files: Sequence[Path], unit_bytes: int) -> Iterator[Unit]:
    waiting: list[Piece] = []
    size = 0
    for file in files:
        kind, length = _kind(file), file.stat().st_size
        assert kind is not None
        if length < unit_bytes:
            waiting.append(Piece(kind, str(file)))
            size += length
        if waiting and (size >= unit_bytes or length >= unit_bytes):
            yield Unit(tuple(waiting))
            waiting, size = [], 0
        if length >= unit_bytes:
            pieces = _ranges(file) if kind == "parquet" else [Piece(kind, str(file))]
            yield from (Unit((piece,)) for piece in pieces)
    if waiting:
        yield Unit(tuple(waiting))


def _ranges(file: Path) -> list[Piece]:
    """Runs of row groups of a large parquet file."""
    import pyarrow
    from pyarrow import parquet

    try:
        meta = parquet.ParquetFile(file).metadata
    except (OSError, pyarrow.ArrowInvalid):
        return [Piece("parquet", str(file))]  # whoever reads it says what is wrong with it
    pieces: list[Piece] = []
    first = size = 0
    for number in range(meta.num_row_groups):
        size += meta.row_group(number).total_byte_size
        if size >= _RANGE_BYTES or number + 1 == meta.num_row_groups:
            pieces.append(Piece("parquet", str(file), first, number + 1))
            first, size = number + 1, 0
    return pieces or [Piece("parquet", str(file))]


def _hub_units(name: str) -> list[Unit]:
    shards = open_stream(name).num_shards
    return [Unit((Piece("hub", name, number, number + 1),)) for number in range(shards)]
