"""Samples of a chat store by their global number: a function of (seed, number) alone, whoever asks.

Training is cut into windows of tokens, of which every source gives its share. The records that begin in a window's part
of a source's endless stream are packed whole, best-fit, and the samples shuffled; how many samples a window gives
follows from the packing, so windows are counted from the first on (some 50 ms for 30,000 records, once).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from threading import RLock

import numpy as np
from numpy.typing import NDArray

from xgen.data.chat.store import Source
from xgen.data.errors import StoreError
from xgen.data.mixture import Component, Mixture
from xgen.data.packing import pack_whole
from xgen.data.permutation import shuffle_keys
from xgen.data.samples import IGNORE, Batch, order_fingerprint

VERSION = 1  # raised when the same store and seed give another order
PAD = 0  # the token of padding, which no label asks for and no document sees
_WINDOW_TOKENS = 1 << 25
_MIN_SAMPLES = 64  # of a window of training: its last sample is half empty
_KEPT_WINDOWS = 4


@dataclass(frozen=True)
class Weighted:
    """A source, and how much of the training it is."""

    source: Source
    weight: float = 1.0
    max_epochs: float | None = None


@dataclass(frozen=True)
class _Window:
    """Sample s of a window holds the records from first[s] up to first[s + 1]; `source` and `record` [num_records] say
    which those are."""

    source: NDArray[np.int64]
    record: NDArray[np.int64]
    first: NDArray[np.int64]


class ChatSamples:
    """Endless samples of `seq_len` tokens: whole conversations, each a document, and padding. Thread-safe."""

    def __init__(
        self, parts: Sequence[Weighted], seq_len: int, seed: int, origin: str, one_epoch: bool = False
    ) -> None:
        """`origin` names the content. `one_epoch`: the first `num_samples` hold every record of the only source once.

        Raises StoreError for a record that is longer than `seq_len`.
        """
        self.seq_len, self.seed = seq_len, seed
        self.parts = tuple(parts)
        self._facts = [f"chat-{VERSION}", f"seq_len={seq_len}", f"seed={seed}", origin, f"one_epoch={one_epoch}"]
        self._facts += [f"{part.source.meta.folder} {part.weight}" for part in parts]
        self._streams = [_Stream(part.source, seed) for part in parts]
        for part in parts:
            if (longest := part.source.meta.counts.longest) > seq_len:
                what = f"has a record of {longest:,} tokens, and seq_len is {seq_len:,}"
                raise StoreError(part.source.path, what, "prepare it again for this seq_len")
        self._mixture = Mixture(
            [
                Component(
                    part.source.name,
                    (),
                    part.source.meta.counts.tokens,
                    Fraction(str(part.weight)),
                    part.max_epochs,
                    origin,
                )
                for part in parts
            ]
        )
        total = sum(component.num_tokens for component in self._mixture.components)
        most = max(_WINDOW_TOKENS, 256 * seq_len)
        self._windows_per_round = 1 if one_epoch else -(-total // most)
        self._round = total if one_epoch else total * max(1, _MIN_SAMPLES * seq_len // total)
        self._first = [0]  # samples before each window, as far as they are counted
        self._planned: OrderedDict[int, _Window] = OrderedDict()
        self._lock = RLock()

    @property
    def fingerprint(self) -> str:
        """Names all that the order follows from."""
        return order_fingerprint(self._facts)

    def batch(self, start: int, count: int) -> Batch:
        """Samples `start` to `start + count - 1`."""
        batch = Batch(*(np.empty((count, self.seq_len), dtype=np.int32) for _ in range(3)))
        for row in range(count):
            self._fill(self._records(start + row), batch, row)
        return batch

    def taken(self, samples: int) -> dict[str, int]:
        """Tokens of each source in the first `samples`, without padding."""
        number, within = self._place(samples)
        tokens = [
            stream.taken(quota)
            for stream, quota in zip(self._streams, self._mixture.quotas(self._edge(number)), strict=True)
        ]
        if within:
            window = self._window(number)
            end = int(window.first[within])
            source, record = window.source[:end], window.record[:end]
            for own, stream in enumerate(self._streams):
                tokens[own] += int(stream.lengths[record[source == own]].sum())
        return {part.source.name: count for part, count in zip(self.parts, tokens, strict=True)}

    def check_caps(self, samples: int) -> None:
        """Raises StoreError where `samples` would show a source more often than it may be."""
        most = self._mixture.epochs(samples * self.seq_len)  # without padding
        caps = (part.max_epochs for part in self.parts)
        if all(cap is None or epochs <= cap for cap, epochs in zip(caps, most, strict=True)):
            return
        taken = self.taken(samples)
        for part in self.parts:
            has = part.source.meta.counts.tokens
            epochs = taken[part.source.name] / has
            if part.max_epochs is not None and epochs > part.max_epochs:
                raise StoreError(
                    f"data.sources.{part.source.name}",
                    f"its {part.source.num_records:,} records would be seen {epochs:.2f} times, and max_epochs is "
                    f"{part.max_epochs:g}",
                    f"write a weight of at most {part.weight * part.max_epochs / epochs:.3g}, a larger max_epochs, or "
                    f"train.steps of at most {part.max_epochs / epochs:.1%} of what they are",
                )

    @property
    def num_samples(self) -> int:
        """Samples of the first round: of a single source that is one epoch, or some whole ones of a small source."""
        with self._lock:
            while len(self._first) <= self._windows_per_round:
                self._window(len(self._first) - 1)
            return self._first[self._windows_per_round]

    def _edge(self, number: int) -> int:
        """Tokens of the mixture before a window."""
        return number * self._round // self._windows_per_round

    def _place(self, sample: int) -> tuple[int, int]:
        """Window of a sample, and its number there."""
        if sample < 0:
            raise IndexError(f"sample {sample} is before the first")
        with self._lock:
            while self._first[-1] <= sample:
                self._window(len(self._first) - 1)
        number = bisect_right(self._first, sample) - 1
        return number, sample - self._first[number]

    def _records(self, sample: int) -> list[tuple[int, int]]:
        """(source, record) of a sample."""
        number, within = self._place(sample)
        window = self._window(number)
        rows = slice(int(window.first[within]), int(window.first[within + 1]))
        return list(zip(window.source[rows].tolist(), window.record[rows].tolist(), strict=True))

    def _window(self, number: int) -> _Window:
        """Planned once and kept for a while."""
        with self._lock:
            if number in self._planned:
                self._planned.move_to_end(number)
                return self._planned[number]
            window = self._planned[number] = self._plan(number)
            if number + 1 == len(self._first):
                self._first.append(self._first[-1] + len(window.first) - 1)
            if len(self._planned) > _KEPT_WINDOWS:
                self._planned.popitem(last=False)
            return window

    def _plan(self, number: int) -> _Window:
        before, after = (self._mixture.quotas(self._edge(edge)) for edge in (number, number + 1))
        taken = [stream.records(begin, end) for stream, begin, end in zip(self._streams, before, after, strict=True)]
        source = np.repeat(np.arange(len(taken)), [len(own) for own in taken])
        record = np.concatenate(taken)
        lengths = np.concatenate([stream.lengths[own] for stream, own in zip(self._streams, taken, strict=True)])
        mixed = np.argsort(shuffle_keys(len(record), self.seed, "records", number))
        source, record = source[mixed], record[mixed]
        sample, count = pack_whole(lengths[mixed], self.seq_len)
        place = np.empty(count, dtype=np.int64)
        place[np.argsort(shuffle_keys(count, self.seed, "samples", number))] = np.arange(count)
        order = np.lexsort((shuffle_keys(len(record), self.seed, "within", number), place[sample]))
        first = np.searchsorted(place[sample][order], np.arange(count + 1))
        return _Window(source[order], record[order], first)

    def _fill(self, records: Sequence[tuple[int, int]], batch: Batch, row: int) -> None:
        at = 0
        for number, record in records:
            source = self.parts[number].source
            for conversation in range(record * source.per_record, (record + 1) * source.per_record):
                at = self._put(source, conversation, batch, row, at)
        batch.tokens[row, at:] = PAD
        batch.labels[row, at:] = IGNORE
        batch.positions[row, at:] = np.arange(self.seq_len - at, dtype=np.int32)

    def _put(self, source: Source, conversation: int, batch: Batch, row: int, at: int) -> int:
        tokens, learn = source.conversation(conversation)
        end = at + len(tokens)
        batch.tokens[row, at:end] = tokens
        batch.labels[row, at : end - 1] = np.where(learn[1:], tokens[1:].astype(np.int32), IGNORE)
        batch.labels[row, end - 1] = IGNORE
        batch.positions[row, at:end] = np.arange(len(tokens), dtype=np.int32)
        return end


class _Stream:
    """The records of a source without end, in another order every epoch."""

    def __init__(self, source: Source, seed: int) -> None:
        ends = source.offsets[:: source.per_record]
        self.lengths: NDArray[np.int64] = np.diff(ends)
        self._total = int(ends[-1])
        self._key = (seed, source.meta.folder)
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def records(self, begin: int, end: int) -> NDArray[np.int64]:
        """Those that begin with a token from `begin` to before `end`."""
        found = [np.empty(0, dtype=np.int64)]
        for epoch in range(begin // self._total, -(-end // self._total)):
            order, starts = self._epoch(epoch)
            low, high = np.searchsorted(starts, [begin - epoch * self._total, end - epoch * self._total])
            found.append(order[low:high])
        return np.concatenate(found)

    def taken(self, end: int) -> int:
        """Tokens of the records that begin before `end`."""
        epoch, within = divmod(end, self._total)
        if not within:
            return end
        order, starts = self._epoch(epoch)
        last = int(np.searchsorted(starts, within)) - 1
        return epoch * self._total + int(starts[last] + self.lengths[order[last]])

    def _make_epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The order of an epoch, and where in it each record begins."""
        order = np.argsort(shuffle_keys(len(self.lengths), *self._key, epoch), kind="stable")
        return order, np.cumsum(self.lengths[order]) - self.lengths[order]
