"""The data loader: every rank takes its part of a step by the global sample index, which is all its state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torchtitan.components.dataloader import BaseDataLoader

from xgen.data.index import SampleIndex
from xgen.data.store import TokenStore


class StoreLoader(BaseDataLoader):
    """Micro-batches of one data-parallel rank: of the S sequences of a step, rank r takes r*S/W to (r+1)*S/W."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        store: str = ""
        seed: int = 0
        sequences_per_step: int = 1

    def __init__(
        self, config: Config, *, dp_world_size: int, dp_rank: int, seq_len: int, local_batch_size: int, **_: Any
    ) -> None:
        self.store = TokenStore.open(Path(config.store))
        self._index = SampleIndex(self.store, seq_len, config.seed)
        self._per_step = config.sequences_per_step
        self._per_rank = config.sequences_per_step // dp_world_size
        self._first = dp_rank * self._per_rank
        self._micro_batch = local_batch_size
        self._positions = torch.arange(seq_len, dtype=torch.int32).repeat(local_batch_size, 1)
        self.next_sample = 0  # global index of the first sample of the next step

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        """Inputs and labels [micro_batch, seq_len] of int64, without end."""
        while True:
            for offset in range(0, self._per_rank, self._micro_batch):
                start = self.next_sample + self._first + offset
                tokens = torch.from_numpy(self._index.batch(start, self._micro_batch)).long()
                if offset + self._micro_batch == self._per_rank:
                    # Before the last yield: what follows it may be the save of this very step.
                    self.next_sample += self._per_step
                yield {"input": tokens[:, :-1], "positions": self._positions}, tokens[:, 1:]

    def state_dict(self) -> dict[str, Any]:
        return {"next_sample": self.next_sample}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.next_sample = state_dict["next_sample"]
