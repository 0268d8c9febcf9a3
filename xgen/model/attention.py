"""The attention of the stage: FlexAttention and varlen on machines without accelerator, and the package flash-attn.

FlexAttention has no backward on the CPU, and varlen no kernel at all; torchtitan's own override mechanism
(`torchtitan/config/override.py`) puts SDPA in their places, and `isinstance` still holds, so that masks and sharding
treat them alike. No memory grows with the square of the sequence length. A block mask carries the function that says
who sees whom, whole or for one rank's share of the queries, and no blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.distributed.tensor.experimental._context_parallel import _attention as torch_context_parallel
from torch.nn.attention.flex_attention import BlockMask
from torchtitan.config.override import override
from torchtitan.models.common import attention as titan_attention
from torchtitan.models.common.attention import FlexAttention, VarlenAttention, VarlenMetadata
from torchtitan.protocols.module import Module

from xgen.model.device import ON_CPU

_SHORT = 1024  # up to so many tokens one pass over the whole mask is faster than its blocks
_BLOCK = 128  # queries that look at keys together
_RUN = 64  # keys that are looked at, or not, together


def _without_blocks(
    mask_mod: Callable[..., torch.Tensor],
    B: int | None,
    H: int | None,
    Q_LEN: int,
    KV_LEN: int,
    device: object = None,
    BLOCK_SIZE: int | tuple[int, int] = 128,
    **unused: Any,
) -> BlockMask:
    """In place of `create_block_mask`, which would make FlexAttention's own structures, and compile to do so."""
    del device, unused
    block = (BLOCK_SIZE, BLOCK_SIZE) if isinstance(BLOCK_SIZE, int) else BLOCK_SIZE
    rows = -(-Q_LEN // block[0])
    none = torch.zeros(B or 1, H or 1, rows, dtype=torch.int32)
    return BlockMask.from_kv_blocks(
        none,
        torch.zeros(B or 1, H or 1, rows, -(-KV_LEN // block[1]), dtype=torch.int32),
        BLOCK_SIZE=block,
        mask_mod=mask_mod,
        seq_lengths=(Q_LEN, KV_LEN),
        compute_q_blocks=False,
    )


if ON_CPU:
    titan_attention._compiled_create_block_mask = _without_blocks
    torch_context_parallel._compiled_create_block_mask = _without_blocks  # type: ignore[assignment]


class MaskedAttention(FlexAttention):
    """The same numbers as FlexAttention, by SDPA: short sequences in one pass, long ones block by block."""

    @dataclass(kw_only=True, slots=True)
    class Config(FlexAttention.Config):
        pass

    def forward(
        self,
        q_BLNH: torch.Tensor,
        k_BLNH: torch.Tensor,
        v_BLNH: torch.Tensor,
        *,
        attention_masks: BlockMask,
        scale: float | None = None,
        enable_gqa: bool = False,
        **unused: Any,
    ) -> torch.Tensor:
        assert not any(unused.get(name) for name in ("score_mod", "out_transform")), unused
        q_BNLH, k_BNLH, v_BNLH = (t.transpose(1, 2) for t in (q_BLNH, k_BLNH, v_BLNH))
        attend = partial(F.scaled_dot_product_attention, scale=scale, enable_gqa=enable_gqa)
        batch, q_len, kv_len = q_BNLH.shape[0], q_BNLH.shape[2], k_BNLH.shape[2]
        if kv_len <= _SHORT:
            out_BNLH = attend(q_BNLH, k_BNLH, v_BNLH, attn_mask=_dense(attention_masks, batch, q_len, kv_len))
        else:
            out_BNLH = _ByBlocks.apply(q_BNLH, k_BNLH, v_BNLH, attention_masks, attend)
        return out_BNLH.transpose(1, 2)


class _ByBlocks(torch.autograd.Function):
    """SDPA of one block of queries after the other, each with the keys that it sees. Nothing is kept for the backward
    pass but the inputs: it computes every block again, with the mask of that block alone."""

    @staticmethod
    def forward(
        ctx: Any,
        q_BNLH: torch.Tensor,
        k_BNLH: torch.Tensor,
        v_BNLH: torch.Tensor,
        block_mask: BlockMask,
        attend: Callable[..., torch.Tensor],
    ) -> torch.Tensor:
        ctx.save_for_backward(q_BNLH, k_BNLH, v_BNLH)
        ctx.block_mask, ctx.attend = block_mask, attend
        out_BNLH = torch.empty_like(q_BNLH)
        for row, queries, keys, mask in _blocks(block_mask, q_BNLH, k_BNLH):
            seen = (t[row, :, keys] for t in (k_BNLH, v_BNLH))
            out_BNLH[row, :, queries] = attend(q_BNLH[row, :, queries], *seen, attn_mask=mask)
        return out_BNLH

    @staticmethod
    def backward(ctx: Any, grad_BNLH: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q_BNLH, k_BNLH, v_BNLH = ctx.saved_tensors  # recomputed activations can be taken once only
        dq_BNLH, dk_BNLH, dv_BNLH = (torch.zeros_like(t) for t in (q_BNLH, k_BNLH, v_BNLH))
        for row, queries, keys, mask in _blocks(ctx.block_mask, q_BNLH, k_BNLH):
            with torch.enable_grad():
                inputs = [q_BNLH[row, :, queries], k_BNLH[row, :, keys], v_BNLH[row, :, keys]]
                inputs = [t.detach().requires_grad_() for t in inputs]
                out = ctx.attend(*inputs, attn_mask=mask)
            dq, dk, dv = torch.autograd.grad(out, inputs, grad_BNLH[row, :, queries])
            dq_BNLH[row, :, queries] = dq
            dk_BNLH[row, :, keys] += dk
            dv_BNLH[row, :, keys] += dv
        return dq_BNLH, dk_BNLH, dv_BNLH, None, None


def _blocks(
    block_mask: BlockMask, q_BNLH: torch.Tensor, k_BNLH: torch.Tensor
) -> Iterator[tuple[slice, slice, torch.Tensor, torch.Tensor]]:
    """For every block of queries of every row: the row, the queries, the keys [keys] of the runs of which they see
    any, and the mask [1, 1, queries, keys]."""
    batch, q_len, kv_len = q_BNLH.shape[0], q_BNLH.shape[2], k_BNLH.shape[2]
    for row, of_row in enumerate(_seen_runs(block_mask, batch, q_len, kv_len)):
        for queries, runs in zip(_blocks_of(q_len), of_row, strict=True):
            keys = (runs[:, None] * _RUN + torch.arange(_RUN)).flatten()
            keys = keys[keys < kv_len]
            yield slice(row, row + 1), queries, keys, _mask(block_mask, row, queries, keys)[None, None]


def _seen_runs(block_mask: BlockMask, batch: int, q_len: int, kv_len: int) -> list[list[torch.Tensor]]:
    """By row and block of queries: the numbers of the runs of keys of which any is seen. All layers of a step share
    one block mask, and so one search.

    The last key of every run is enough to ask for, and for long sequences all that there is time for: a query sees
    itself, and with a key of its document all that lies between. Context parallelism, too, gives a rank whole runs.
    """
    found: list[list[torch.Tensor]] | None = getattr(block_mask, "_xgen_seen", None)
    if found is None:
        last = torch.arange(_RUN, kv_len + _RUN, _RUN).clamp(max=kv_len) - 1
        found = [
            [_mask(block_mask, row, queries, last).any(0).nonzero().flatten() for queries in _blocks_of(q_len)]
            for row in range(batch)
        ]
        block_mask._xgen_seen = found  # type: ignore[attr-defined]
    return found


def _blocks_of(q_len: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, q_len)) for start in range(0, q_len, _BLOCK))


def _dense(block_mask: BlockMask, batch: int, q_len: int, kv_len: int) -> torch.Tensor:
    """[batch, 1, q_len, kv_len] of bool. All layers of a step share one block mask, and so one dense one."""
    dense: torch.Tensor | None = getattr(block_mask, "_xgen_dense", None)
    if dense is None:
        keys = torch.arange(kv_len)
        dense = torch.stack([_mask(block_mask, row, slice(0, q_len), keys) for row in range(batch)])[:, None]
        block_mask._xgen_dense = dense  # type: ignore[attr-defined]
    return dense


def _mask(block_mask: BlockMask, row: int, queries: slice, keys: torch.Tensor) -> torch.Tensor:
    """[queries, keys] of bool: who sees whom in a row."""
    q = torch.arange(queries.start, queries.stop)[:, None]
    seen: torch.Tensor = block_mask.mask_mod(torch.tensor(row), torch.tensor(0), q, keys[None, :])
    return seen.expand(len(q), len(keys))


class DocumentAttention(VarlenAttention):
    """The same numbers as varlen attention, in the precision of its inputs: SDPA of one document after the other."""

    @dataclass(kw_only=True, slots=True)
    class Config(VarlenAttention.Config):
        pass

    def forward(
        self,
        q_BLNH: torch.Tensor,
        k_BLNH: torch.Tensor,
        v_BLNH: torch.Tensor,
        *,
        attention_masks: VarlenMetadata,
        scale: float | None = None,
        enable_gqa: bool = False,
        **unused: Any,
    ) -> torch.Tensor:
        assert self.window_size == (-1, 0), self.window_size
        assert unused.get("out_transform") is None, unused
        lengths = attention_masks.cu_seq_q.diff().tolist()
        documents = zip(*(torch.split(t.flatten(0, 1), lengths) for t in (q_BLNH, k_BLNH, v_BLNH)), strict=True)
        attend = partial(F.scaled_dot_product_attention, is_causal=True, scale=scale, enable_gqa=enable_gqa)
        outs_NTH = [attend(*(t.transpose(0, 1)[None] for t in qkv))[0] for qkv in documents]
        return torch.cat(outs_NTH, 1).transpose(0, 1).reshape(q_BLNH.shape)


class FlashAttention(VarlenAttention):
    """The kernel of the package flash-attn (https://github.com/Dao-AILab/flash-attention), on the same metadata.

    Raises ImportError without the package."""

    @dataclass(kw_only=True, slots=True)
    class Config(VarlenAttention.Config):
        pass

    def __init__(self, config: Config) -> None:
        from flash_attn import flash_attn_varlen_func

        Module.__init__(self)  # VarlenAttention's would activate a kernel of torch's
        self.window_size = config.window_size
        self._kernel = flash_attn_varlen_func

    def forward(
        self,
        q_BLNH: torch.Tensor,
        k_BLNH: torch.Tensor,
        v_BLNH: torch.Tensor,
        *,
        attention_masks: VarlenMetadata,
        scale: float | None = None,
        **unused: Any,
    ) -> torch.Tensor:
        assert unused.get("out_transform") is None, unused
        # The kernel knows half precisions only, and grouped queries by the shapes.
        q_TNH, k_TNH, v_TNH = (t.flatten(0, 1).to(torch.bfloat16) for t in (q_BLNH, k_BLNH, v_BLNH))
        out_TNH: torch.Tensor = self._kernel(
            q_TNH,
            k_TNH,
            v_TNH,
            attention_masks.cu_seq_q,
            attention_masks.cu_seq_k,
            attention_masks.max_q,
            attention_masks.max_k,
            softmax_scale=scale,
            causal=True,
            window_size=self.window_size,
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )
        return out_TNH.reshape(q_BLNH.shape).to(q_BLNH.dtype)


@override(target=FlexAttention.Config, exact=True, description="masked SDPA where FlexAttention has no backward")
def dense_on_cpu(config: FlexAttention.Config) -> FlexAttention.Config:
    return MaskedAttention.Config(**_fields(config)) if ON_CPU else config


@override(target=VarlenAttention.Config, exact=True, description="SDPA per document where varlen has no kernel")
def documents_on_cpu(config: VarlenAttention.Config) -> VarlenAttention.Config:
    return DocumentAttention.Config(**_fields(config)) if ON_CPU else config


def _fields(config: Any) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in fields(config) if f.init}
