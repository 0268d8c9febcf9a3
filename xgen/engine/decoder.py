"""A Llama-type decoder for generation: the arithmetic of torchtitan's, weights laid out for few tokens at a time.

Queries, keys and values are one matrix, and so are the two that enter SwiGLU. Every matrix product has `FEWEST` rows
or more: from there on, on CPUs, a row of it has the same bits whatever stands beside it (measured: with MKL from 4 rows
on, with oneDNN from 2; below, other kernels sum in another order). With attention row by row, so has the whole model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from xgen.engine.attention import Attend, Attention, Piece
from xgen.engine.cache import Cache
from xgen.engine.causal import BLOCK
from xgen.engine.matrix import Matrix
from xgen.engine.protocol import EngineError
from xgen.model import titan_model
from xgen.model.hf import parameter_shapes
from xgen.spec import ModelSpec, RopeScaling

FEWEST = 4  # rows of a matrix product


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
        self.fewest = FEWEST if device.type == "cpu" else 1  # no bits are promised elsewhere
        self.seq_len = seq_len
        self.at_a_time = 2048 if device.type == "cpu" else BLOCK  # tokens that are computed together
        self._num_queries, self._num_keys = model.dim, model.num_kv_heads * model.head_dim
        # The table of torchtitan's own module, so that positions turn as they do in the training.
        rope = titan_model(model, seq_len, rope_theta, rope_scaling).model.layers[0].attention.rope
        self._turns = rope.build().cache.to(device)
        self._attention = Attention(model, device, dtype)
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

    def prefill(self, cache: Cache, pieces: Sequence[Piece]) -> None:
        """Fill the cache with tokens whose predecessors in their rows it has. No logits: those are of `decode`."""
        self._read(cache, pieces, for_logits=False)

    @torch.inference_mode()
    def hidden(self, cache: Cache, pieces: Sequence[Piece]) -> torch.Tensor:
        """The same, and what `logits` takes of every token of the pieces: [T, dim]."""
        x = self._read(cache, pieces, for_logits=True)[: sum(len(piece.tokens) for piece in pieces)]
        return F.rms_norm(x, (self.model.dim,), self._norm, self.model.norm_eps)

    @torch.inference_mode()
    def logits(self, hidden_TD: torch.Tensor) -> torch.Tensor:
        """[T, vocab] of float32."""
        idle = max(0, self.fewest - len(hidden_TD))
        padded_TD = F.pad(hidden_TD, (0, 0, 0, idle)) if idle else hidden_TD
        return self._head.in_float32(padded_TD)[: len(hidden_TD)]

    @torch.inference_mode()
    def decode(
        self, cache: Cache, token_R: torch.Tensor, position_R: torch.Tensor, lengths: Sequence[int]
    ) -> torch.Tensor:
        """Logits [R, vocab] of float32 after one more token in each of the first rows, whose predecessors the cache
        has; it takes in these. `lengths`: the positions, plus 1. The cache has `fewest` rows or more.
        """
        num_rows = max(len(token_R), self.fewest)
        idle = num_rows - len(token_R)
        tokens, positions = F.pad(token_R, (0, idle)), F.pad(position_R, (0, idle))
        cells = self._cells(cache, torch.arange(num_rows, device=self.device), positions)
        attend = self._attention.to_rows(positions, lengths, cache.room)
        hidden = self._forward(tokens, positions, cache, cells, attend)
        hidden = F.rms_norm(hidden, (self.model.dim,), self._norm, self.model.norm_eps)
        return self.logits(hidden)[: len(token_R)]

    @torch.inference_mode()
    def _read(self, cache: Cache, pieces: Sequence[Piece], for_logits: bool) -> torch.Tensor:
        tokens = [token for piece in pieces for token in piece.tokens]
        positions = [position for piece in pieces for position in range(piece.start, piece.stop)]
        rows = [piece.row for piece in pieces for _ in piece.tokens]
        idle = max(0, self.fewest - len(tokens))
        cells = self._cells(cache, torch.tensor(rows), torch.tensor(positions))
        return self._forward(
            torch.tensor(tokens + [0] * idle, device=self.device),
            torch.tensor(positions + [0] * idle, device=self.device),
            cache,
            cells.to(self.device),
            self._attention.to_pieces(pieces, cache.room),
            for_logits,
        )

    def _forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        cache: Cache,
        cells: torch.Tensor,
        attend: Attend,
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


def _turn(qk_TNH: torch.Tensor, turn_T1P: torch.Tensor) -> None:
    """Rotate, in place: pairs of neighbours as complex numbers, in float32."""
    pairs = (*qk_TNH.shape[:2], -1, 2)
    if qk_TNH.dtype == torch.float32:
        torch.view_as_complex(qk_TNH.view(pairs)).mul_(turn_T1P)
    else:
        turned = torch.view_as_complex(qk_TNH.float().view(pairs)) * turn_T1P
        qk_TNH.copy_(torch.view_as_real(turned).flatten(-2))
