"""Log-probabilities of both answers of every pair by the initial weights: computed once, in blocks, kept as files. No
torch.

`reference/KEY/` of the run has a file for each block of a source's rows, renamed into place when it is whole. KEY names
what the numbers follow from, the store and the weights: those of another store are never taken.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xgen.data.chat.order import epoch_of
from xgen.data.chat.pairs import PairSamples
from xgen.data.chat.store import ChatStore
from xgen.runs import Refused, RunDir
from xgen.runs.origin import Beginning

_TOKENS = 1 << 20  # of a block: what a kill costs at most
ENTRY = np.dtype([("pair", "<i8"), ("chosen", "<f4"), ("rejected", "<f4")])


@dataclass(frozen=True)
class Block:
    """Rows `first` to `end - 1` of the one epoch of a source."""

    samples: PairSamples
    first: int
    end: int
    file: Path

    @property
    def is_done(self) -> bool:
        return self.file.exists()

    def write(self, entries: NDArray[np.void]) -> None:
        """One for each of its pairs, in any order; durable when this returns."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        building = self.file.with_name(f".{self.file.name}.{os.getpid()}.tmp")
        try:
            with building.open("wb") as out:
                np.save(out, np.sort(entries, order="pair"))
                out.flush()
                os.fsync(out.fileno())
            building.replace(self.file)
        except BaseException:
            building.unlink(missing_ok=True)
            raise


def reference_folder(run: RunDir, store: ChatStore, beginning: Beginning) -> Path:
    facts = f"{store.meta.fingerprint} {store.meta.seq_len} {beginning.fingerprint}"
    return run.path / "reference" / hashlib.sha256(facts.encode()).hexdigest()[:16]


def blocks_of(store: ChatStore, folder: Path) -> Iterator[Block]:
    """Of all sources, held-out ones too. Raises StoreError."""
    rows = max(1, _TOKENS // store.meta.seq_len)
    for source in store.sources:
        if not source.num_records:
            continue
        samples = epoch_of(store, source.meta.split, source.name)
        assert isinstance(samples, PairSamples)
        for first in range(0, samples.num_samples, rows):
            file = folder / source.meta.split / f"{source.name}.{first:09}.npy"
            yield Block(samples, first, min(first + rows, samples.num_samples), file)


def read_reference(run: RunDir, store: ChatStore, beginning: Beginning | None) -> NDArray[np.float32]:
    """[pairs of the store, 2]: of the better and the worse answer. Raises Refused where some are missing."""
    found = np.full((store.num_records, 2), np.nan, dtype=np.float32)
    if beginning is not None:
        for block in blocks_of(store, reference_folder(run, store, beginning)):
            if block.is_done:
                entries = _read(block.file)
                found[entries["pair"]] = np.stack([entries["chosen"], entries["rejected"]], axis=1)
    if missing := int(np.isnan(found).any(axis=1).sum()):
        raise Refused(
            f"reference: {run.path / 'reference'} lacks {missing:,} of the {store.num_records:,} pairs of {store.path} "
            f"by the weights {beginning or 'that this run begins with'}; write xgen resume {run.name}, which computes "
            "them, or reference: frozen"
        )
    return found


def _read(file: Path) -> NDArray[np.void]:
    try:
        entries: NDArray[np.void] = np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise Refused(f"reference: {file} cannot be read ({error}); remove it, and write xgen resume") from None
    if entries.dtype != ENTRY:
        raise Refused(f"reference: {file} has {entries.dtype}; remove it, and write xgen resume")
    return entries
