"""Packed samples by their global number: a function of (seed, number) alone, whoever asks and in whatever order.

Training is cut into windows of a fixed number of samples. A window takes the next tokens of every component, exactly
as many as the mixture says; its documents are shuffled, packed best-fit into the window's samples, and the samples
shuffled. Where a window's tokens lie follows from its number by arithmetic, so that sample 10^12 costs one window too.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from xgen.data.errors import StoreError
from xgen.data.mixture import Mixture
from xgen.data.packing import pack
from xgen.data.permutation import shuffle_keys
from xgen.data.stream import DocumentStream, Pieces

VERSION = 1  # raised when the same data and seed give another order
IGNORE = -100  # label of a position that predicts nothing: the last token of a document
WINDOW_TOKENS = 1 << 25  # planned at once: 30,000 documents of the web, planned in some 50 ms
_MIN_SAMPLES = 256  # of a window, where long samples would leave few
_BLOCKS_PER_WINDOW = 64
_BLOCK_SAMPLES = 16  # a block holds at least as many: its edges cut documents
_KEPT_WINDOWS = 4  # planned windows that are kept: ranks and workers read around an edge


@dataclass(frozen=True)
class Batch:
    """Samples as a decoder takes them; all int32 [num_samples, seq_len].

    labels: the token after each, -100 after the last one of a document. positions: from 0 in every document, which is
    what the document mask follows from.
    """

    tokens: NDArray[np.int32]
    labels: NDArray[np.int32]
    positions: NDArray[np.int32]


@dataclass(frozen=True)
class Window:
    """What the samples of one window hold: sample s the pieces from first[s] up to first[s + 1]."""

    pieces: Pieces
    first: NDArray[np.int64]
    num_cut: int  # pieces that packing cut: documents, or parts of them, that fitted nowhere whole


class PackedSamples:
    """Endless samples of `seq_len` tokens from a mixture. Thread-safe: workers may share it."""

    def __init__(self, mixture: Mixture, seq_len: int, seed: int, block: int = 0) -> None:
        """`block`: tokens that lie together in every text; default: what suits `seq_len`.

        Raises StoreError when a component is so small a share that a window would not hold a token of it.
        """
        self.mixture, self.seq_len, self.seed = mixture, seq_len, seed
        self._parts = [part for component in mixture.components for part in component.parts]
        self._component = np.repeat(np.arange(len(mixture.components)), [len(c.parts) for c in mixture.components])
        self.window_samples = _window_samples(seq_len, mixture)
        window_tokens = self.window_samples * seq_len
        self._own_block = block_tokens(mixture, seq_len)
        self._block = block or self._own_block
        self._streams, first = [], 0
        weights = sum(component.weight for component in mixture.components)
        for component in mixture.components:
            if component.weight * window_tokens < weights:
                what = f"a window of {window_tokens:,} tokens would hold none of it"
                raise StoreError(f"mixture: {component.name}", what, "write a larger weight, or leave it out")
            self._streams.append(DocumentStream(component.parts, self._block, (seed, component.name), first))
            first += len(component.parts)
        self._windows: OrderedDict[int, Window] = OrderedDict()
        self._lock = Lock()

    @property
    def fingerprint(self) -> str:
        """Names all that the order follows from: the text, the mixture, `seq_len`, the seed, this algorithm."""
        return order_fingerprint(
            [f"packed-{VERSION}", f"seq_len={self.seq_len}", f"seed={self.seed}", f"window={self.window_samples}"]
            + ([f"block={self._block}"] if self._block != self._own_block else [])
            + [f"{c.name} {c.weight} {c.origin}{f' {c.begin}' if c.begin else ''}" for c in self.mixture.components]
        )

    def batch(self, start: int, count: int) -> Batch:
        """Samples `start` to `start + count - 1`."""
        shape = (count, self.seq_len)
        tokens, labels = np.empty(shape, dtype=np.int32), np.empty(shape, dtype=np.int32)
        lengths: list[NDArray[np.int64]] = []
        done = 0
        while done < count:
            number, within = divmod(start + done, self.window_samples)
            if number < 0:
                raise IndexError(f"sample {start} is before the first")
            size = min(count - done, self.window_samples - within)
            rows = slice(done, done + size)
            lengths.append(self._fill(self.window(number), within, tokens[rows], labels[rows]))
            done += size
        return Batch(tokens, labels, _positions(np.concatenate(lengths)).reshape(shape))

    def taken(self, samples: int) -> dict[str, int]:
        """Tokens of each component in the first `samples`, and in the stages before by their plan. Not by its share
        alone: within a window documents come as they are shuffled."""
        number, within = divmod(samples, self.window_samples)
        counts = np.array(self.mixture.quotas(number * self.window_samples * self.seq_len), dtype=np.int64)
        if within:
            window = self.window(number)
            pieces = slice(0, int(window.first[within]))
            np.add.at(counts, self._component[window.pieces.part[pieces]], window.pieces.length[pieces])
        components = zip(self.mixture.components, counts.tolist(), strict=True)
        return {component.name: component.begin + count for component, count in components}

    def window(self, number: int) -> Window:
        """The plan of a window; planned once and kept for a while."""
        with self._lock:
            if number in self._windows:
                self._windows.move_to_end(number)
                return self._windows[number]
            planned = self._plan(number)
            self._windows[number] = planned
            if len(self._windows) > _KEPT_WINDOWS:
                self._windows.popitem(last=False)
            return planned

    def _plan(self, number: int) -> Window:
        tokens = self.window_samples * self.seq_len
        before, after = (self.mixture.quotas(tokens * edge) for edge in (number, number + 1))
        taken = [
            stream.pieces(component.begin + begin, end - begin)
            for stream, component, begin, end in zip(self._streams, self.mixture.components, before, after, strict=True)
        ]
        pieces = Pieces.join(taken).cut(self.seq_len)
        pieces = pieces.take(np.argsort(shuffle_keys(len(pieces), self.seed, "documents", number)))
        packing = pack(pieces.length, self.seq_len, self.window_samples)
        num_parts = np.diff(packing.first)
        place = np.empty(self.window_samples, dtype=np.int64)
        place[np.argsort(shuffle_keys(self.window_samples, self.seed, "samples", number))] = np.arange(len(place))
        order = np.lexsort(
            (
                shuffle_keys(len(packing.source), self.seed, "within", number),
                np.repeat(place, num_parts),
            )
        )
        source, offset, length = packing.source[order], packing.offset[order], packing.length[order]
        whole = offset + length == pieces.length[source]
        packed = Pieces(pieces.part[source], pieces.start[source] + offset, length, pieces.ends[source] & whole)
        counts = np.empty_like(num_parts)
        counts[place] = num_parts
        return Window(packed, np.concatenate([[0], np.cumsum(counts)]), len(packing.source) - len(pieces))

    def _fill(
        self, window: Window, within: int, tokens: NDArray[np.int32], labels: NDArray[np.int32]
    ) -> NDArray[np.int64]:
        """Write the samples from `within` on of one window; returns the lengths of their pieces."""
        low, high = int(window.first[within]), int(window.first[within + len(tokens)])
        pieces = window.pieces
        flat_tokens, flat_labels = tokens.reshape(-1), labels.reshape(-1)
        lengths = pieces.length[low:high]
        columns = (column.tolist() for column in (pieces.part[low:high], pieces.start[low:high], lengths))
        at = 0
        for part, start, length, is_end in zip(*columns, pieces.ends[low:high].tolist(), strict=True):
            source = self._parts[part].tokens
            stop = at + length
            flat_tokens[at:stop] = source[start : start + length]
            if is_end:
                flat_labels[at : stop - 1] = flat_tokens[at + 1 : stop]
                flat_labels[stop - 1] = IGNORE
            else:
                flat_labels[at:stop] = source[start + 1 : start + length + 1]
            at = stop
        return lengths


def order_fingerprint(facts: Sequence[str]) -> str:
    """16 hex digits that name an order of samples."""
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def block_tokens(mixture: Mixture, seq_len: int) -> int:
    """Tokens of a text that lie together, so that documents are rarely cut."""
    return max(_window_samples(seq_len, mixture) * seq_len // _BLOCKS_PER_WINDOW, _BLOCK_SAMPLES * seq_len)


def _window_samples(seq_len: int, mixture: Mixture) -> int:
    """About `WINDOW_TOKENS`, but not more than one epoch of a small corpus; a power of two."""
    total = sum(component.num_tokens for component in mixture.components)
    wanted = max(_MIN_SAMPLES, WINDOW_TOKENS // seq_len)
    return 1 << (max(1, min(wanted, total // seq_len)).bit_length() - 1)


def _positions(lengths: NDArray[np.int64]) -> NDArray[np.int32]:
    """0, 1, 2, … anew for every piece."""
    ends = np.cumsum(lengths)
    return (np.arange(int(ends[-1]), dtype=np.int32)) - np.repeat((ends - lengths).astype(np.int32), lengths)
