"""Attention of the generation, in two forms: to one row of the cache for many tokens, and to all for one token each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from xgen.engine.causal import causal, flash, has_flash
from xgen.spec import ModelSpec

# In float32 on CPUs, what a token sums is summed in the same order whatever is computed beside it. torch multiplies
# matrices by a kernel of its own where the product of the three sizes is below _SMALL, and MKL splits sums of more than
# some 190 terms by their length: so values are summed by _SPAN.
_SMALL, _SPAN = 400, 128

# Flash shares the keys of a row out over a whole GPU, and costs, in all layers of the 4B, 3.5 ms for each further row.
# Without it a block of threads computes a head, 0.68 ms for a thousand keys, of all rows at the same time. On an H100
# flash takes less from so many keys on for each row, 5 rows counted besides (benchmarks/gpu_evaluate.py).
_KEYS_FOR_A_ROW = 5000

# (queries [T, heads x head_dim], keys and values of a layer, or of a row of it) -> [T, heads x head_dim]
Attend = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Piece:
    """Tokens of one row of the cache that are computed together: from position `start` on. `again`: they were computed
    by `decode` before, and are to have the same bits."""

    row: int
    start: int
    tokens: Sequence[int]
    again: bool = False

    @property
    def stop(self) -> int:
        return self.start + len(self.tokens)


class Attention:
    """Of a model's heads, on a device and in the dtype of its weights."""

    def __init__(self, model: ModelSpec, device: torch.device, dtype: torch.dtype) -> None:
        self.model, self.device, self.dtype = model, device, dtype
        self._scale = 1 / math.sqrt(model.head_dim)
        per_token = model.dim // model.num_kv_heads  # of an attention: queries x head_dim
        self._causal = causal(model.head_dim, device, dtype)
        self._has_flash = has_flash(model.head_dim, device, dtype)
        self._round = next(size for size in (16, 32, 64, _SPAN) if size * per_token >= _SMALL or size == _SPAN)

    def to_pieces(self, pieces: Sequence[Piece], room: int) -> Attend:
        """For the tokens of the pieces, one piece after the other; more rows than these give 0."""
        of_pieces = [self._to_piece(piece, room) for piece in pieces]

        def attend(q_TD: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
            out_TD = torch.zeros_like(q_TD)
            done = 0
            for piece, attend_piece in zip(pieces, of_pieces, strict=True):
                here = slice(done, done + len(piece.tokens))
                out_TD[here] = attend_piece(q_TD[here], kv[:, piece.row])
                done = here.stop
            return out_TD

        return attend

    def _to_piece(self, piece: Piece, room: int) -> Attend:
        if piece.again and self.dtype == torch.float32:  # half precisions promise no bits, and the other takes less
            return self._as_decoded(piece, room)
        heads = (self.model.num_heads, self.model.head_dim)

        def attend(q_TD: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
            k_NLH, v_NLH = kv[:, :, : piece.stop]
            out_NTH = self._causal(q_TD.view(-1, *heads).transpose(0, 1), k_NLH, v_NLH)
            return out_NTH.transpose(0, 1).flatten(1)

        return attend

    def _as_decoded(self, piece: Piece, room: int) -> Attend:
        """A token after the other as `decode` does it, by products of the same sizes, head by head."""
        seen = self._looked_at(piece.stop, room)
        bias_T1L = self._bias(torch.arange(piece.start, piece.stop, device=self.device), seen)[:, None]
        num_tokens, head_dim = len(piece.tokens), self.model.head_dim

        def attend(q_TD: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
            q_TNRH = q_TD.view(num_tokens, self.model.num_kv_heads, -1, head_dim)
            k_NTLH, v_NTLH = kv[:, :, None, :seen].expand(-1, -1, num_tokens, -1, -1)
            outs = [
                _weigh(q_TNRH[:, head], k_NTLH[head], v_NTLH[head], bias_T1L, self._scale)
                for head in range(self.model.num_kv_heads)
            ]
            return torch.stack(outs, 1).view(num_tokens, -1)

        return attend

    def to_rows(self, position_R: torch.Tensor, lengths: Sequence[int], room: int) -> Attend:
        """For one token of every row, at its position, whose predecessors the cache has and itself. `lengths`: the
        positions plus 1, of rows that count."""
        if self._has_flash and max(lengths) > _KEYS_FOR_A_ROW * (len(lengths) + 5):
            return self._row_by_row(lengths)
        seen = self._looked_at(max(lengths), room)
        num_rows, kv_heads, head_dim = len(position_R), self.model.num_kv_heads, self.model.head_dim
        bias = self._bias(position_R, seen)[:, None, None].expand(num_rows, kv_heads, 1, seen)
        flat_bias = bias.reshape(num_rows * kv_heads, 1, seen)

        def in_float32(q_RD: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
            """On CPUs SDPA takes longer, and sums in an order that depends on the rest of the batch."""
            k, v = kv[:, :num_rows].flatten(1, 2)[:, :, :seen]
            q = q_RD.reshape(num_rows * kv_heads, -1, head_dim)
            return _weigh(q, k, v, flat_bias, self._scale).view(num_rows, -1)

        def in_half(q_RD: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
            """By SDPA, which keeps scores in float32; the queries of a KV head are as queries in a row of tokens."""
            k, v = kv[:, :num_rows, :, :seen]
            q = q_RD.reshape(num_rows, kv_heads, -1, head_dim)
            mask = bias.expand(-1, -1, q.shape[2], -1)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).reshape(num_rows, -1)

        return in_float32 if self.dtype == torch.float32 else in_half

    def _row_by_row(self, lengths: Sequence[int]) -> Attend:
        heads = (self.model.num_heads, 1, self.model.head_dim)

        def attend(q_RD: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
            rows = [
                flash(q_D.view(heads), *kv[:, row, :, :length])
                for row, (q_D, length) in enumerate(zip(q_RD, lengths, strict=True))
            ]
            return torch.stack(rows).view(len(rows), -1)

        return attend

    def _bias(self, position_T: torch.Tensor, seen: int) -> torch.Tensor:
        """[T, seen]: 0 for what a token of that position sees, else minus infinity."""
        hidden_TL = torch.arange(seen, device=self.device) > position_T[:, None]
        return torch.zeros(hidden_TL.shape, device=self.device, dtype=self.dtype).masked_fill_(hidden_TL, -torch.inf)

    def _looked_at(self, length: int, room: int) -> int:
        """Tokens that attention takes part of, masked or not."""
        return min(-(-length // self._round) * self._round, room)


def _weigh(
    q_BRH: torch.Tensor, k_BLH: torch.Tensor, v_BLH: torch.Tensor, bias_B1L: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attention of R queries of each of B; [B, R, head_dim]."""
    share_BRL = torch.baddbmm(bias_B1L, q_BRH, k_BLH.transpose(1, 2), alpha=scale).softmax(-1)
    out_BRH = torch.bmm(share_BRL[:, :, :_SPAN], v_BLH[:, :_SPAN])
    for start in range(_SPAN, share_BRL.shape[2], _SPAN):
        span = slice(start, start + _SPAN)
        out_BRH = torch.baddbmm(out_BRH, share_BRL[:, :, span], v_BLH[:, span])
    return out_BRH
