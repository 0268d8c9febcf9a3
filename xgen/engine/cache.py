"""Keys and values of the tokens so far: a row for each answer on its way."""

from __future__ import annotations

import math

import torch

from xgen.engine.protocol import EngineError
from xgen.spec import ModelSpec

_STEP = 128  # tokens of a row come and go together


class Cache:
    """`layers`: by layer, keys and values [2, rows, kv_heads, room, head_dim]. Rooms grow by doubling."""

    def __init__(self, model: ModelSpec, device: torch.device, dtype: torch.dtype, fix: str) -> None:
        """No memory is taken before `reserve`. `fix`: what to write where there is too little of it."""
        self._fix = fix
        self._fixed = (model.num_layers, 2, model.num_kv_heads, model.head_dim)
        self._all = torch.zeros(0, device=device, dtype=dtype)
        self.layers: tuple[torch.Tensor, ...] = ()
        self.clear()

    @property
    def num_rows(self) -> int:
        return self._all.shape[2]

    @property
    def room(self) -> int:
        """Tokens of a row."""
        return self._all.shape[4]

    def reserve(self, num_rows: int, length: int, most: int) -> None:
        """At least so many rows, of so many tokens, which may be `most` later; what is there stays. Raises EngineError
        without the memory."""
        if num_rows <= self.num_rows and length <= self.room:
            return
        if length > self.room:
            length = max(length, min(2 * self.room, most))
        kept = self._all
        self._take(max(num_rows, self.num_rows), max(rounded(length), self.room))
        self._all[:, :, : kept.shape[2], :, : kept.shape[4]] = kept

    def clear(self) -> None:
        """Forget everything, and give the memory back."""
        self._take(0, 0)

    def copy(self, source: int, row: int, start: int, stop: int) -> None:
        """The tokens from `start` to `stop` of one row to another."""
        self._all[:, :, row, :, start:stop] = self._all[:, :, source, :, start:stop]

    def _take(self, num_rows: int, room: int) -> None:
        num_layers, two, kv_heads, head_dim = self._fixed
        shape = (num_layers, two, num_rows, kv_heads, room, head_dim)
        try:
            # Zeros, not whatever was there: what a mask hides still takes part, times 0, and 0 times NaN is NaN.
            self._all = torch.zeros(shape, device=self._all.device, dtype=self._all.dtype)
        except RuntimeError as error:  # torch.OutOfMemoryError is one, and the CPU's is no other
            size = math.prod(shape) * self._all.element_size() / 1e9
            raise EngineError(
                f"no {size:.1f} GB for the keys and values of {num_rows} answers of {room} tokens: "
                f"{str(error).splitlines()[0]}; {self._fix}",
                retryable=False,
            ) from error
        self.layers = self._all.unbind()


def rounded(length: int) -> int:
    """The room that a row of so many tokens takes."""
    return -(-length // _STEP) * _STEP
