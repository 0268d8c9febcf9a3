"""The index of a curated corpus: by what its documents are found when another corpus is curated after it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.data.curate.match import RECORD_WORDS
from xgen.data.errors import StoreError
from xgen.data.meta import FileMeta
from xgen.spec.curate import Curate, Dedup

INDEX_FILE = "index.json"
INDEXED = ("near", "exact")  # sections of keys.bin


class IndexMeta(BaseModel):
    """index.json: how the keys were made, and in how many buckets. `ngram`, `bands` and `rows` have to be the same.

    `files` has what the index consists of, so that the hash of index.json stands for all of it.
    """

    model_config = ConfigDict(frozen=True)

    ngram: int
    bands: int
    rows: int
    num_documents: int
    num_buckets: int
    files: dict[str, FileMeta]


@dataclass(frozen=True)
class Earlier:
    """The documents of all earlier corpora, numbered one corpus after the other."""

    folders: tuple[Path, ...]
    metas: tuple[IndexMeta, ...]

    @classmethod
    def open(cls, job: Curate) -> Self:
        """Raises StoreError for a folder that is no index, or one of another geometry."""
        folders = tuple(Path(folder) for folder in job.dedup.earlier)
        return cls(folders, tuple(_meta(folder, job.dedup) for folder in folders))

    def check(self) -> None:
        """Raises StoreError for a file that is missing, or shorter or longer than it was."""
        for folder, meta in zip(self.folders, self.metas, strict=True):
            for name, about in meta.files.items():
                file = folder / name
                if not file.is_file() or file.stat().st_size != about.bytes:
                    raise StoreError(file, "is not the file that the index was written with", "name a whole index")

    @property
    def num_documents(self) -> int:
        return sum(meta.num_documents for meta in self.metas)

    def records(self, section: str, bucket: int, num_buckets: int) -> NDArray[np.uint64]:
        """Those of a bucket of keys, by the numbers of their documents."""
        parts = [np.zeros((0, RECORD_WORDS), dtype=np.uint64)]
        begin = 0
        for folder, meta in zip(self.folders, self.metas, strict=True):
            if section in INDEXED:
                low, high = bucket_bounds(bucket, num_buckets)
                found = np.concatenate([parts[0], *_between(folder, meta, section, low, high)])
                found = found[np.argsort(found[:, 1], kind="stable")]
                found[:, 1] += np.uint64(begin)
                parts.append(found)
            begin += meta.num_documents
        return np.concatenate(parts)


def index_file(folder: Path, section: str, bucket: int) -> Path:
    """Records of a bucket, by key."""
    return folder / f"{section}-{bucket:04}.bin"


def bucket_bounds(bucket: int, num_buckets: int) -> tuple[int, int]:
    """The keys of a bucket (`by_bucket`): from the first to before the second."""
    low, high = (-(-(number << 32) // num_buckets) << 32 for number in (bucket, bucket + 1))
    return low, high


def _between(folder: Path, meta: IndexMeta, section: str, low: int, high: int) -> Iterator[NDArray[np.uint64]]:
    """Records with keys from `low` to before `high`; the index may have other buckets."""
    first, last = ((key >> 32) * meta.num_buckets >> 32 for key in (low, high - 1))
    for bucket in range(first, last + 1):
        file = index_file(folder, section, bucket)
        if not file.stat().st_size:
            continue
        whole = np.memmap(file, dtype="<u8", mode="r").reshape(-1, RECORD_WORDS)
        # Not searchsorted, which would read all of it.
        begin, end = (bisect_left(whole[:, 0], key, key=int) for key in (low, high))
        yield np.array(whole[begin:end], dtype=np.uint64)


def _meta(folder: Path, dedup: Dedup) -> IndexMeta:
    try:
        meta = IndexMeta.model_validate_json((folder / INDEX_FILE).read_bytes())
    except FileNotFoundError:
        raise StoreError(folder, f"is no index: it has no {INDEX_FILE}", "name OUT/index of a curated corpus") from None
    except ValidationError as error:
        raise StoreError(folder / INDEX_FILE, f"is no index: {error}", "name OUT/index of a curated corpus") from None
    for name in ("ngram", "bands", "rows"):
        if (theirs := getattr(meta, name)) != (ours := getattr(dedup, name)):
            what = f"was made with {name} {theirs}, and the spec has {ours}"
            raise StoreError(folder, what, f"write {name}: {theirs}")
    return meta
