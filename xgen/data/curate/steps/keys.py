"""keys.bin of a unit: the records that duplicates are found by, in runs of what was held in memory at once.

In a run they lie by section and bucket of keys, else in their order; keys.npy [runs, sections, buckets + 1] says where
each bucket begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.match import RECORD_WORDS, by_bucket

SECTIONS = ("near", "exact", "ids")
_KEYS_FILE, _INDEX_FILE = "keys.bin", "keys.npy"
_RUN_BYTES = 256 << 20  # twice as much is held while a run is written
_RECORD_BYTES = 8 * RECORD_WORDS


class KeysWriter:
    """Writes the keys of a unit, whose records come batch by batch, documents ascending."""

    def __init__(self, folder: Path, num_buckets: int) -> None:
        self._folder, self._num_buckets = folder, num_buckets
        self._waiting: dict[str, list[NDArray[np.uint64]]] = {name: [] for name in SECTIONS}
        self._index: list[NDArray[np.int64]] = []
        self._num_bytes = self._num_records = 0

    def add(self, found: Mapping[str, NDArray[np.uint64]]) -> None:
        """[n, 5] of each section."""
        for name, records in found.items():
            self._waiting[name].append(records)
            self._num_bytes += records.nbytes
        if self._num_bytes >= _RUN_BYTES:
            self._write_run()

    def close(self) -> None:
        self._write_run()
        np.save(self._folder / _INDEX_FILE, np.stack(self._index))

    def _write_run(self) -> None:
        index = np.zeros((len(SECTIONS), self._num_buckets + 1), dtype=np.int64)
        none = np.zeros((0, RECORD_WORDS), dtype=np.uint64)
        with (self._folder / _KEYS_FILE).open("ab") as file:
            for number, name in enumerate(SECTIONS):
                waiting, self._waiting[name] = self._waiting[name], []
                whole = np.concatenate([none, *waiting])
                del waiting
                records, offsets = by_bucket(whole, self._num_buckets)
                records.astype("<u8", copy=False).tofile(file)
                index[number] = self._num_records + offsets
                self._num_records += len(records)
        self._index.append(index)
        self._num_bytes = 0


def read_keys(folder: Path, section: str, bucket: int) -> Iterator[NDArray[np.uint64]]:
    """The records of a bucket, run by run."""
    index = np.load(folder / _INDEX_FILE, mmap_mode="r")[:, SECTIONS.index(section), bucket : bucket + 2]
    with (folder / _KEYS_FILE).open("rb") as file:
        for first, last in index.tolist():
            file.seek(first * _RECORD_BYTES)
            records = np.fromfile(file, dtype="<u8", count=(last - first) * RECORD_WORDS)
            yield records.astype(np.uint64, copy=False).reshape(-1, RECORD_WORDS)
