"""The index of a curated corpus: by what its documents are found when another corpus is curated after it."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.data.curate.match import RECORD_WORDS
from xgen.data.errors import StoreError
from xgen.spec.curate import Curate, Dedup

INDEX_FILE = "index.json"
_SECTIONS = ("near", "exact")


class IndexMeta(BaseModel):
    """index.json: how the keys were made, and how many there are. `ngram`, `bands` and `rows` have to be the same."""

    model_config = ConfigDict(frozen=True)

    ngram: int
    bands: int
    rows: int
    num_documents: int
    records: dict[str, int]  # by section: in SECTION.bin, by key


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

    @property
    def num_documents(self) -> int:
        return sum(meta.num_documents for meta in self.metas)

    def records(self, section: str, bucket: int, num_buckets: int) -> NDArray[np.uint64]:
        """Those of a bucket of keys, by the numbers of their documents."""
        parts = [np.zeros((0, RECORD_WORDS), dtype=np.uint64)]
        begin = 0
        for folder, meta in zip(self.folders, self.metas, strict=True):
            if section in _SECTIONS and meta.records[section]:
                whole = np.memmap(folder / f"{section}.bin", dtype="<u8", mode="r").reshape(-1, RECORD_WORDS)
                # Not searchsorted, which would read all of it.
                low, high = (bisect_left(whole[:, 0], bound, key=int) for bound in bucket_bounds(bucket, num_buckets))
                records = np.array(whole[low:high], dtype=np.uint64)
                records = records[np.argsort(records[:, 1], kind="stable")]
                records[:, 1] += np.uint64(begin)
                parts.append(records)
            begin += meta.num_documents
        return np.concatenate(parts)


def bucket_bounds(bucket: int, num_buckets: int) -> tuple[int, int]:
    """The keys of a bucket (`by_bucket`): from the first to before the second."""
    low, high = (-(-(number << 32) // num_buckets) << 32 for number in (bucket, bucket + 1))
    return low, high


def _meta(folder: Path, dedup: Dedup) -> IndexMeta:
    try:
        meta = IndexMeta.model_validate_json((folder / INDEX_FILE).read_bytes())
    except FileNotFoundError:
        raise StoreError(folder, f"is no index: it has no {INDEX_FILE}", "name OUT/index of a curated corpus") from None
    except ValidationError as error:
        raise StoreError(folder / INDEX_FILE, f"is no index: {error}", "name OUT/index of a curated corpus") from None
    for name in ("ngram", "bands", "rows"):
        if (theirs := getattr(meta, name)) != (ours := getattr(dedup, name)):
            raise StoreError(
                folder, f"was made with {name} {theirs}, and the spec has {ours}", f"write {name}: {theirs}"
            )
    return meta
