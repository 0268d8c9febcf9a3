"""Compressed JSON lines: what is broken is named with its line, and nothing is lost silently."""

from __future__ import annotations

import gzip
import hashlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from xgen.data import StoreError
from xgen.data.documents import Document, lines_of, read_documents, write_documents

DOCUMENTS = [
    Document(id=f"d{n}", text=f"number {n}\nÆther 𝄞\x00", domain="code", source="s", licence="MIT") for n in range(2000)
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "code.jsonl.zst"
    write_documents(path, DOCUMENTS)
    return path


def write_lines(path: Path, *lines: str) -> Path:
    path.write_bytes(zstandard.compress("\n".join(lines).encode()))
    return path


def record(**changes: object) -> str:
    return json.dumps({"id": "a", "text": "b", "domain": "c", "source": "d", "licence": "e"} | changes)


def test_documents_come_back_as_written(file: Path) -> None:
    assert list(read_documents(file)) == DOCUMENTS


def test_all_frames_are_read_and_a_last_line_needs_no_end(tmp_path: Path) -> None:
    path = tmp_path / "frames.jsonl.zst"
    half = record(id="2").encode()
    frames = [record(id="1").encode() + b"\n" + half[:20], half[20:] + b"\n\n", record(id="3").encode()]
    path.write_bytes(b"".join(map(zstandard.compress, frames)))
    assert [document.id for document in read_documents(path)] == ["1", "2", "3"]


def test_file_compressed_with_a_long_window_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl.zst"
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path.write_bytes(stream.compress(record(id="1").encode()) + stream.flush())
    assert [document.id for document in read_documents(path)] == ["1"]


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.999])
def test_truncated_file_is_refused_with_the_last_whole_line(file: Path, keep: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(StoreError, match=r"code\.jsonl\.zst: is damaged: after line \d+: .*; fetch or write"):
        list(read_documents(file))


def test_flipped_byte_is_found(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match=r"code\.jsonl\.zst"):
        list(read_documents(file))


@pytest.mark.parametrize(("suffix", "compress"), [("zst", zstandard.compress), ("gz", gzip.compress)])
def test_the_whole_lines_before_damage_are_read(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    lines = [hashlib.sha256(b"%d" % n).hexdigest().encode() for n in range(40_000)]
    half = len(compress(b"\n".join(lines[:20_000]))) - 100
    data = bytearray(compress(b"\n".join(lines)))
    data[half:] = b"\xff" * (len(data) - half)
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(data)
    found = []
    with pytest.raises(StoreError, match=r"is damaged: after line (\d+)") as error:
        for number, line in lines_of(path):
            found.append((number, line))
    assert f"after line {len(found)}:" in str(error.value)
    whole = [one for one in found if one[1] == lines[one[0] - 1]]
    assert whole[-1][0] == len(whole) >= 14_000


def test_a_line_that_grows_without_end_when_it_is_decompressed_does_not_fill_the_memory(tmp_path: Path) -> None:
    path, stream = tmp_path / "bomb.jsonl.zst", zstandard.ZstdCompressor().compressobj()
    path.write_bytes(b"".join([stream.compress(b"1\n"), *(stream.compress(bytes(1 << 20)) for _ in range(1024)),
                               stream.compress(b"\n3"), stream.flush()]))  # fmt: skip
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    assert [(number, len(line)) for number, line in lines_of(path, 1 << 20)] == [(1, 1), (2, (1 << 20) + 1), (3, 1)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 << 20


def test_file_that_is_not_compressed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl.zst"
    path.write_text(record())
    with pytest.raises(StoreError, match="is damaged: after line 0"):
        list(read_documents(path))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none\.jsonl\.zst: No such file"):
        list(read_documents(tmp_path / "none.jsonl.zst"))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ('{"id": "a", "text": ', "Invalid JSON"),
        (record(text=7), "text: Input should be a valid string"),
        ('{"id": "a"}', "text: Field required"),
        (record(domain=""), "domain: String should have at least 1 character"),
        (record(text="lone \ud800 surrogate"), "Invalid JSON"),
    ],
)
def test_broken_line_is_named(tmp_path: Path, broken: str, message: str) -> None:
    path = write_lines(tmp_path / "b.jsonl.zst", record(), record(), broken, record())
    documents = read_documents(path)
    assert [next(documents).id, next(documents).id] == ["a", "a"]
    with pytest.raises(StoreError, match=rf"b\.jsonl\.zst: line 3: {message}"):
        next(documents)
