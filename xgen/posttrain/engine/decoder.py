"""A Llama-type decoder for generation: the arithmetic of torchtitan's, weights laid out for few tokens at a time.

Queries, keys and values are one matrix, and so are the two that enter SwiGLU. Every matrix product has `FEWEST` rows
or more: from there on, on CPUs, a row of it has the same bits whatever stands beside it (measured: with MKL from 4 rows
on, with oneDNN from 2; below, other kernels sum in another order). With attention row by row, so has the whole model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from xgen.model import titan_model
from xgen.model.hf import parameter_shapes
from xgen.posttrain.engine.cache import Cache
from xgen.posttrain.engine.matrix import Matrix
from xgen.posttrain.engine.protocol import EngineError
from xgen.spec import ModelSpec, RopeScaling

FEWEST = 4  # rows of a matrix product
# Attention, too, sums in the same order in any company. torch multiplies matrices by a kernel of its own where the
# product of the three sizes is below _SMALL, and MKL splits sums by their length where that is above _SPAN.
_SMALL, _SPAN = 400, 128

# (queries [T, heads x head_dim], keys and values of a layer, or of a row of it) -> [T, heads x head_dim]
_Attend = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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


@dataclass(frozen=True)
class _Layer:
    attention_norm: torch.Tensor
    wqkv: Matrix
    qk_norm: torch.Tensor | None  # [heads + kv_heads, head_dim]
    wo: Matrix
    ffn_norm: torch.Tensor
    w13: Matrix
    w2: Matrix


class Decoder:
    """Logits of the next tokens. Weights are undefined until `load`."""

    def __init__(
        self,
        model: ModelSpec,
        seq_len: int,
        rope_theta: float,
        rope_scaling: RopeScaling | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.model, self.device, self.dtype = model, device, dtype
        self._num_queries, self._num_keys = model.dim, model.num_kv_heads * model.head_dim
        self._scale = 1 / math.sqrt(model.head_dim)
        per_token = model.dim // model.num_kv_heads  # of an attention: queries x head_dim
        self._round = next(size for size in (16, 32, 64, _SPAN) if size * per_token >= _SMALL or size == _SPAN)
        # The table of torchtitan's own module, so that positions turn as they do in the training.
        rope = titan_model(model, seq_len, rope_theta, rope_scaling).model.layers[0].attention.rope
        self._turns = rope.build().cache.to(device)
        self._places: dict[str, torch.Tensor] = {}
        self._matrices: list[Matrix] = []
        self._embedding = self._empty("tok_embeddings.weight", model.vocab_size, model.dim)
        self._layers = [self._layer(f"layers.{number}.") for number in range(model.num_layers)]
        self._norm = self._empty("norm.weight", model.dim)
        self._head = self._matrix({"lm_head.weight": model.vocab_size}, model.dim)

    def _layer(self, prefix: str) -> _Layer:
        model, attention, ffn = self.model, f"{prefix}attention.", f"{prefix}feed_forward."
        q, k, v = (f"{attention}qkv_linear.{name}.weight" for name in ("wq", "wk", "wv"))
        qk_norm = None
        if model.qk_norm:
            qk_norm = torch.empty(
                model.num_heads + model.num_kv_heads, model.head_dim, device=self.device, dtype=self.dtype
            )
            self._places[f"{attention}q_norm.weight"] = qk_norm[: model.num_heads]
            self._places[f"{attention}k_norm.weight"] = qk_norm[model.num_heads :]
        return _Layer(
            attention_norm=self._empty(f"{prefix}attention_norm.weight", model.dim),
            wqkv=self._matrix({q: self._num_queries, k: self._num_keys, v: self._num_keys}, model.dim),
            qk_norm=qk_norm,
            wo=self._matrix({f"{attention}wo.weight": model.dim}, model.dim),
            ffn_norm=self._empty(f"{prefix}ffn_norm.weight", model.dim),
            w13=self._matrix({f"{ffn}{name}.weight": model.ffn_dim for name in ("w1", "w3")}, model.dim),
            w2=self._matrix({f"{ffn}w2.weight": model.dim}, model.ffn_dim),
        )

    def _empty(self, name: str, *shape: int) -> torch.Tensor:
        self._places[name] = torch.empty(shape, device=self.device, dtype=self.dtype)
        return self._places[name]

    def _matrix(self, parts: dict[str, int], num_in: int) -> Matrix:
        """Of weights, by the number of rows that they have, one below the other."""
        matrix = Matrix(sum(parts.values()), num_in, self.device, self.dtype)
        self._places |= dict(zip(parts, torch.split(matrix.dense, list(parts.values())), strict=True))
        self._matrices.append(matrix)
        return matrix

    def load(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Copy every weight to its place. Raises EngineError unless they are all those of the model."""
        shapes = parameter_shapes(self.model)
        missing = set(shapes)
        for name, tensor in weights:  # may be computed as they are asked for, and not without gradients
            if tuple(tensor.shape) != shapes.get(name):
                raise EngineError(
                    f"the weight {name} is {list(tensor.shape)}, and the model {self.model.name} has "
                    + (f"{list(shapes[name])} there" if name in shapes else "none of this name"),
                    retryable=False,
                )
            with torch.no_grad():
                self._places[name].copy_(tensor)
            missing.discard(name)
        if missing:
            raise EngineError(
                f"{len(missing)} weights of the model {self.model.name} were not given, {min(missing)} first",
                retryable=False,
            )
        for matrix in self._matrices:
            matrix.settle()

    @torch.inference_mode()
    def prefill(self, cache: Cache, pieces: Sequence[Piece]) -> None:
        """Fill the cache with tokens whose predecessors in their rows it has. No logits: those are of `decode`."""
        tokens = [token for piece in pieces for token in piece.tokens]
        positions = [position for piece in pieces for position in range(piece.start, piece.stop)]
        rows = [piece.row for piece in pieces for _ in piece.tokens]
        idle = max(0, FEWEST - len(tokens))
        cells = self._cells(cache, torch.tensor(rows), torch.tensor(positions))
        self._forward(
            torch.tensor(tokens + [0] * idle, device=self.device),
            torch.tensor(positions + [0] * idle, device=self.device),
            cache,
            cells.to(self.device),
            self._attend_to_pieces(pieces, cache.room),
            for_logits=False,
        )

    def _attend_to_pieces(self, pieces: Sequence[Piece], room: int) -> _Attend:
        # In half precision nothing is the same to the bit, and SDPA takes less memory.
        by = [self._as_decoded if piece.again and self.dtype == torch.float32 else self._causal for piece in pieces]
        of_pieces = [make(piece, room) for make, piece in zip(by, pieces, strict=True)]

        def attend(q_TD: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
            out_TD = torch.zeros_like(q_TD)
            done = 0
            for piece, attend_piece in zip(pieces, of_pieces, strict=True):
                here = slice(done, done + len(piece.tokens))
                out_TD[here] = attend_piece(q_TD[here], kv[:, piece.row])
                done = here.stop
            return out_TD

        return attend

    def _causal(self, piece: Piece, _room: int) -> _Attend:
        """By SDPA."""
        heads, mask = (self.model.num_heads, self.model.head_dim), None
        if piece.start:  # who sees whom; where nothing comes before, SDPA knows by itself
            positions = torch.arange(piece.stop, device=self.device)
            mask = positions[piece.start :, None] >= positions

        def attend(q_TD: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
            q_NTH = q_TD.view(-1, *heads).transpose(0, 1)
            k_NLH, v_NLH = kv[:, :, : piece.stop]
            out_NTH = F.scaled_dot_product_attention(
                q_NTH[None], k_NLH[None], v_NLH[None], attn_mask=mask, is_causal=mask is None, enable_gqa=True
            )[0]
            return out_NTH.transpose(0, 1).flatten(1)

        return attend

    def _as_decoded(self, piece: Piece, room: int) -> _Attend:
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

    @torch.inference_mode()
    def decode(self, cache: Cache, token_R: torch.Tensor, position_R: torch.Tensor, longest: int) -> torch.Tensor:
        """Logits [R, vocab] of float32 after one more token in each of the first rows, whose predecessors the cache
        has; it takes in these. `longest`: the greatest position, plus 1. The cache has `FEWEST` rows or more.
        """
        num_rows = max(len(token_R), FEWEST)
        idle = num_rows - len(token_R)
        tokens, positions = F.pad(token_R, (0, idle)), F.pad(position_R, (0, idle))
        seen = self._looked_at(longest, cache.room)
        cells = self._cells(cache, torch.arange(num_rows, device=self.device), positions)
        hidden = self._forward(tokens, positions, cache, cells, self._attend_to_rows(positions, seen))
        hidden = F.rms_norm(hidden, (self.model.dim,), self._norm, self.model.norm_eps)
        return self._head.times(hidden)[: len(token_R)].float()

    def _attend_to_rows(self, position_R: torch.Tensor, seen: int) -> _Attend:
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

    def _bias(self, position_T: torch.Tensor, seen: int) -> torch.Tensor:
        """[T, seen]: 0 for what a token of that position sees, else minus infinity."""
        hidden_TL = torch.arange(seen, device=self.device) > position_T[:, None]
        return torch.zeros(hidden_TL.shape, device=self.device, dtype=self.dtype).masked_fill_(hidden_TL, -torch.inf)

    def _looked_at(self, length: int, room: int) -> int:
        """Tokens that attention takes part of, masked or not."""
        return min(-(-length // self._round) * self._round, room)

    def _forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        cache: Cache,
        cells: torch.Tensor,
        attend: _Attend,
        for_logits: bool = True,
    ) -> torch.Tensor:
        """Hidden states [T, dim] after the last layer, whose output is left out unless it is `for_logits`."""
        model, num_queries = self.model, self._num_queries
        num_written = len(cells) // (2 * model.num_kv_heads)
        turns = self._turns[positions][:, None]
        x = F.embedding(tokens, self._embedding)
        for layer, kv in zip(self._layers, cache.layers, strict=True):
            normed = F.rms_norm(x, (model.dim,), layer.attention_norm, model.norm_eps)
            qkv = layer.wqkv.times(normed)
            qk = qkv[:, : num_queries + self._num_keys].view(len(x), -1, model.head_dim)
            if layer.qk_norm is not None:
                torch.mul(F.rms_norm(qk, (model.head_dim,), None, model.norm_eps), layer.qk_norm, out=qk)
            _turn(qk, turns)
            kv.view(-1, model.head_dim).index_copy_(
                0, cells, qkv[:num_written, num_queries:].reshape(-1, model.head_dim)
            )
            if layer is self._layers[-1] and not for_logits:
                break
            x = layer.wo.times(attend(qkv[:, :num_queries], kv), plus=x)
            normed = F.rms_norm(x, (model.dim,), layer.ffn_norm, model.norm_eps)
            gate, up = layer.w13.times(normed).chunk(2, -1)
            x = layer.w2.times(F.silu(gate) * up, plus=x)
        return x

    def _cells(self, cache: Cache, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Where in a layer of the cache, seen as [cells, head_dim], the keys and values of tokens belong: in the order
        of the tokens, keys before values, by head."""
        kv_heads = self.model.num_kv_heads
        heads = torch.arange(kv_heads, device=rows.device)
        kinds = torch.arange(2, device=rows.device)[:, None] * cache.num_rows
        return (((kinds + rows[:, None, None]) * kv_heads + heads) * cache.room + positions[:, None, None]).flatten()


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


def _turn(qk_TNH: torch.Tensor, turn_T1P: torch.Tensor) -> None:
    """Rotate, in place: pairs of neighbours as complex numbers, in float32."""
    pairs = (*qk_TNH.shape[:2], -1, 2)
    if qk_TNH.dtype == torch.float32:
        torch.view_as_complex(qk_TNH.view(pairs)).mul_(turn_T1P)
    else:
        turned = torch.view_as_complex(qk_TNH.float().view(pairs)) * turn_T1P
        qk_TNH.copy_(torch.view_as_real(turned).flatten(-2))
