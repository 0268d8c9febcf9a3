"""What there is to read, cut into units that are read in parallel: each becomes one part a domain, or a few."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from xgen.data.errors import InterruptedBuildError, StoreError
from xgen.data.places import HUB, File, arrow_input, find, is_remote, look, open_input

Kind = Literal["lines", "parquet", "arrow", "warc", "html", "hub"]
_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "lines": (".jsonl", ".jsonl.zst", ".jsonl.gz", ".json.zst", ".json.gz", ".ndjson"),
    "parquet": (".parquet",),
    "arrow": (".arrow",),
    "warc": (".warc", ".warc.gz", ".warc.zst", ".warc.wet.gz"),
    "html": (".html", ".html.gz", ".html.zst", ".htm"),
}
_TAKEN = "it takes .jsonl, .warc and .html, also as .zst or .gz, .parquet and .arrow"
# Bytes of files: smaller ones share a unit, of a size that gives a few thousand units at most (each is a part or more),
# and many enough for all workers where there is little. A power of two: files that grow a little leave it as it was.
_MIN_UNIT, _MAX_UNIT, _MANY_UNITS = 4 << 20, 1 << 30, 4096
_RANGE_BYTES = 256 << 20  # of a large parquet file, uncompressed: a unit


@dataclass(frozen=True)
class Piece:
    """A file, or a part of one: row groups (parquet) or shards (hub) from `first` to before `last`; 0: to the end."""

    kind: Kind
    path: str
    first: int = 0
    last: int = 0

    @property
    def has_pages(self) -> bool:
        """Whether its documents are pages, which have an id of their own."""
        return self.kind in ("warc", "html")


@dataclass(frozen=True)
class Unit:
    """What one worker reads at once, in this order."""

    pieces: tuple[Piece, ...]

    @property
    def paths(self) -> list[str]:
        """Of its files, each once; `datasets` knows its own."""
        return list(dict.fromkeys(piece.path for piece in self.pieces if piece.kind != "hub"))


@dataclass(frozen=True)
class Plan:
    """The units of some inputs, in an order that their names fix; `ignored` counts files of other kinds by suffix."""

    units: tuple[Unit, ...]
    ignored: dict[str, int]
    files: tuple[File, ...]  # that are read, in order
    hub_bytes: int  # of data sets that `datasets` reads, as far as it knows

    @property
    def num_bytes(self) -> int:
        return self.hub_bytes + sum(file.size for file in self.files)

    @property
    def extractor(self) -> str:
        """The version of what finds the text of pages, where there are some."""
        pages = any(piece.has_pages for unit in self.units for piece in unit.pieces)
        return version("resiliparse") if pages else ""

    @cached_property
    def _by_path(self) -> dict[str, File]:
        return {file.path: file for file in self.files}

    def files_of(self, unit: Unit) -> list[File]:
        """The files that a unit reads, as they were found."""
        return [self._by_path[path] for path in unit.paths]


def plan_units(inputs: Sequence[str]) -> Plan:
    """Plan the reading of `inputs`: files, folders, URLs of either, `hf:NAME[:SPLIT]`.

    Raises StoreError for what is not there, holds nothing to read, or is of no known kind.
    """
    ignored: Counter[str] = Counter()
    found = {name: _files(name, ignored) for name in dict.fromkeys(inputs) if not name.startswith(HUB)}
    files = {file.path: file for some in found.values() for file in some}
    wanted = 1 << (sum(file.size for file in files.values()) // _MANY_UNITS).bit_length()
    unit_bytes = min(max(wanted, _MIN_UNIT), _MAX_UNIT)
    units: list[Unit] = []
    hub_bytes = 0
    for name in inputs:
        if name.startswith(HUB):
            stream, size = _from_hub(name)
            units += (Unit((Piece("hub", name, number, number + 1),)) for number in range(stream.num_shards))
            hub_bytes += size
        else:
            units += _group(found[name], name.removeprefix("file://"), unit_bytes)
    return Plan(tuple(units), dict(ignored), tuple(files.values()), hub_bytes)


def check_files(path: str) -> None:
    """Raises StoreError for a file or a folder on this machine that holds nothing to read; nothing is opened."""
    _files(path, Counter())


def open_stream(name: str) -> Any:
    """The `datasets` stream of hf:NAME[:SPLIT], NAME being a data set or a folder that `datasets` can load.

    Raises StoreError.
    """
    return _from_hub(name, sized=False)[0]


def hub_files(inputs: Sequence[str]) -> list[File]:
    """Files of the folders that `datasets` reads: a data set of the hub is known by its name alone."""
    folders = [Path(name.removeprefix(HUB).partition(":")[0]) for name in inputs if name.startswith(HUB)]
    return [
        look(str(path)) for folder in folders if folder.is_dir() for path in sorted(folder.rglob("*")) if path.is_file()
    ]


def _from_hub(name: str, sized: bool = True) -> tuple[Any, int]:
    """A stream, and how many bytes its files have, as far as that is known; not `sized`, no file is looked at."""
    try:
        import datasets
    except ImportError:
        raise StoreError(name, "needs the package datasets", "pip install 'xgen[train]'") from None
    where, _, split = name.removeprefix(HUB).partition(":")
    split = split or "train"
    try:
        builder = datasets.load_dataset_builder(where)
        stream = builder.as_streaming_dataset(split=split)
        files = (builder.config.data_files or {}).get(split, ()) if sized else ()
        size = sum(look(str(file), fresh=False).size for file in files) or builder.info.download_size or 0
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 - datasets raises what its readers raise
        raise hub_error(name, error) from None
    return stream, size


def hub_error(name: str, error: Exception) -> StoreError:
    """What `datasets` raised: InterruptedBuildError where the network failed."""
    what = " ".join(str(error).split())[:200]
    fetch = "without network, xgen fetch it where there is one and name the folder"
    if isinstance(error, ConnectionError | TimeoutError) and "Offline" not in what:
        return InterruptedBuildError(name, f"cannot be reached: {what}", f"run it again; {fetch}")
    return StoreError(name, f"cannot be read: {what}", f"check name and split; {fetch}")


def _files(name: str, ignored: Counter[str]) -> list[File]:
    """A file, or the files under a folder that can be read, sorted; hidden ones are nobody's data."""
    name = name.removeprefix("file://")
    found = find(name) if is_remote(name) else _local(Path(name))
    if [file.path for file in found] == [name] and _kind(name) is None:
        raise StoreError(name, "is of no known kind", _TAKEN)
    names = {file.path for file in found}
    if (splits := f"{name.rstrip('/')}/dataset_dict.json") in names:
        with open_input(splits) as data:
            first, *_ = known = json.load(data)["splits"]
        what = f"holds the splits {', '.join(known)}, which would be mixed"
        raise StoreError(name, what, f"name one, e.g. {name.rstrip('/')}/{first}")
    files, others = [], Counter[str]()
    for file in found:
        path = PurePosixPath(file.path)
        if is_remote(name) and any(part.startswith(".") for part in file.path.removeprefix(name).split("/")):
            continue
        if (clean := file.path.encode(errors="backslashreplace").decode()) != file.path:
            raise StoreError(clean, "has a name that is not UTF-8, and could not be written down", "rename it")
        if (kind := _kind(file.path)) is None or (kind == "arrow" and not _belongs(file.path, names)):
            others[path.suffix or path.name] += 1
        else:
            files.append(file)
    if not files:
        there = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(3))
        raise StoreError(name, f"holds nothing to read{there and f', but {there}'}", _TAKEN)
    ignored.update(others)
    return files


def _local(path: Path) -> list[File]:
    if not path.exists():
        raise StoreError(path, "does not exist", "name a file, a folder, a URL, or hf:NAME")
    paths = [path] if path.is_file() else sorted(_walk(path, (path.resolve(),)))
    return [look(str(one)) for one in paths]


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


def _belongs(arrow: str, names: Set[str]) -> bool:
    """False for what `datasets` has cached beside a saved data set, whose state.json lists its files."""
    folder, _, name = arrow.rpartition("/")
    if (state := f"{folder}/state.json") not in names:
        return True
    with open_input(state) as data:
        return name in {file["filename"] for file in json.load(data).get("_data_files", ())}


def _kind(path: str) -> Kind | None:
    return next((kind for kind, suffixes in _SUFFIXES.items() if path.endswith(suffixes)), None)


def _group(files: Sequence[File], folder: str, unit_bytes: int) -> Iterator[Unit]:
    """Units of small files end where a hash of a file's name under the folder says so: one that is added, grows or goes
    changes its own unit, and others only up to the next such end."""
    waiting: list[Piece] = []
    size = 0
    for file in files:
        kind = _kind(file.path)
        assert kind is not None
        if file.size < unit_bytes:
            waiting.append(Piece(kind, file.path))
            size += file.size
        if waiting and (_ends(file, folder, unit_bytes) or size >= 2 * unit_bytes):
            yield Unit(tuple(waiting))
            waiting, size = [], 0
        if file.size >= unit_bytes:
            pieces = _ranges(file.path) if kind == "parquet" else [Piece(kind, file.path)]
            yield from (Unit((piece,)) for piece in pieces)
    if waiting:
        yield Unit(tuple(waiting))


def _ends(file: File, folder: str, unit_bytes: int) -> bool:
    """Once in `unit_bytes` bytes of files."""
    digest = hashlib.sha256(file.path.removeprefix(folder).lstrip("/").encode()).digest()
    return int.from_bytes(digest[:4]) * unit_bytes < file.size << 32


def _ranges(path: str) -> list[Piece]:
    """Runs of row groups of a large parquet file."""
    import pyarrow
    from pyarrow import parquet

    try:
        with arrow_input(path) as file:
            meta = parquet.ParquetFile(file).metadata
    except (OSError, pyarrow.ArrowInvalid):
        return [Piece("parquet", path)]  # whoever reads it says what is wrong with it
    pieces: list[Piece] = []
    first = size = 0
    for number in range(meta.num_row_groups):
        size += meta.row_group(number).total_byte_size
        if size >= _RANGE_BYTES or number + 1 == meta.num_row_groups:
            pieces.append(Piece("parquet", path, first, number + 1))
            first, size = number + 1, 0
    return pieces or [Piece("parquet", path)]
