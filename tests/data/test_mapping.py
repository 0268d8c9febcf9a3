"""Files as arrays: no descriptor stays open, no memory stays mapped."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from xgen.data.mapping import map_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.bin"
    np.arange(10_000, dtype="<u2").tofile(path)
    return path


def num_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def times_mapped(file: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(file))


def test_mapped_file_costs_no_descriptor_and_is_unmapped_with_its_last_slice(file: Path) -> None:
    before = num_descriptors()
    arrays = [map_file(file, "<u2", 10_000) for _ in range(50)]
    assert num_descriptors() == before and times_mapped(file) == 50
    piece = arrays[7][5_000:5_003]
    del arrays
    gc.collect()
    assert times_mapped(file) == 1 and piece.tolist() == [5_000, 5_001, 5_002]
    del piece
    gc.collect()
    assert times_mapped(file) == 0


def test_mapped_file_is_a_plain_read_only_array_that_outlives_the_name(file: Path) -> None:
    array = map_file(file, "<u2", 9_999)
    file.unlink()
    assert type(array) is np.ndarray and array.dtype == np.uint16 and len(array) == 9_999
    assert array.sum() == sum(range(9_999))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_what_cannot_be_mapped_is_named(file: Path, tmp_path: Path) -> None:
    assert len(map_file(file, "<u8", 0)) == 0
    with pytest.raises(ValueError, match=r"numbers\.bin: has fewer than 20002 bytes"):
        map_file(file, "<u2", 10_001)
    with pytest.raises(FileNotFoundError, match=r"none\.bin"):
        map_file(tmp_path / "none.bin", "<u2", 1)
