"""A poll's metrics as bytes, made once; a scrape only joins them, also for clients that want gzip."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # of a gzip stream: deflate, no name, no time
_END = b"\x03\x00"  # a last deflate block with nothing in it
_MAX_VALUE = 249  # bytes of a label's value: one above monitoring/prometheus.yml's limit, and no page is taken at all


@dataclass(frozen=True)
class Part:
    text: bytes
    deflated: bytes  # blocks of a deflate stream, none the last; they refer to nothing before them
    num_series: int


class _Counted(Collector):
    """What `generate_latest` reads: one family at a time, which is then let go."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics, self.num_series = metrics, 0

    def collect(self) -> Iterator[Metric]:
        for metric in self._metrics:
            self.num_series += len(metric.samples)
            for sample in metric.samples:
                for label, value in sample.labels.items():
                    if len(value) > _MAX_VALUE // 4:  # a character has four bytes at most
                        sample.labels[label] = value.encode()[:_MAX_VALUE].decode(errors="ignore")
            yield metric


def render(metrics: Iterable[Metric]) -> Part:
    counted = _Counted(metrics)
    text = generate_latest(counted)
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return Part(text, deflate.compress(text) + deflate.flush(zlib.Z_FULL_FLUSH), counted.num_series)


def join(parts: Sequence[Part]) -> bytes:
    return b"".join(part.text for part in parts)


def join_gzip(parts: Sequence[Part]) -> bytes:
    """The same as one gzip stream. Only the checksum is over all of it: 1 ms a megabyte."""
    checksum = size = 0
    for part in parts:
        checksum = zlib.crc32(part.text, checksum)
        size += len(part.text)
    return b"".join((_HEADER, *(part.deflated for part in parts), _END, struct.pack("<II", checksum, size % (1 << 32))))
