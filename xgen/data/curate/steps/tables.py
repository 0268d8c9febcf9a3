"""Reading the tables that steps write: some of their columns, some of their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import ArrayLike


def batches_of(file: Path, columns: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
    """The batches of a table, without its other columns."""
    with pyarrow.memory_map(str(file)) as mapped:
        table = _opened(mapped, columns)
        for place in range(table.num_record_batches):
            yield table.get_batch(place)


def table_of(file: Path, columns: Sequence[str]) -> pyarrow.Table:
    """All of a table but its other columns, in one piece."""
    with pyarrow.memory_map(str(file)) as mapped:
        return _opened(mapped, columns).read_all().combine_chunks()


def rows_of(file: Path, key: str, values: ArrayLike, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of which the column `key`, a number, is one of the values."""
    for batch in batches_of(file, list(dict.fromkeys([key, *columns]))):
        at = np.flatnonzero(np.isin(batch.column(key).to_numpy(), values))
        if len(at):
            yield from batch.take(pyarrow.array(at)).to_pylist()


def _opened(mapped: pyarrow.MemoryMappedFile, columns: Sequence[str]) -> pyarrow.RecordBatchFileReader:
    names = pyarrow.ipc.open_file(mapped).schema.names
    options = pyarrow.ipc.IpcReadOptions(included_fields=[names.index(name) for name in columns])
    return pyarrow.ipc.open_file(mapped, options=options)
