"""FlexAttention for machines without accelerator: it has no backward on the CPU, so a dense mask stands in.

Applied by torchtitan's own override mechanism (`torchtitan/config/override.py`); `isinstance(FlexAttention)` still
holds, so masks and sharding treat it alike. Quadratic memory in the sequence length: for short sequences. A block
mask carries the function that says who sees whom, whole or for one rank's share of the queries, and no blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch.distributed.tensor.experimental._context_parallel import _attention as torch_context_parallel
from torch.nn.attention.flex_attention import BlockMask
from torchtitan.config.override import override
from torchtitan.models.common import attention as titan_attention
from torchtitan.models.common.attention import FlexAttention

from xgen.model.device import ON_CPU


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


class DenseMaskAttention(FlexAttention):
    """The same numbers as FlexAttention, by SDPA over the mask written out."""

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
        mask = _dense(attention_masks, q_BNLH.shape[0], q_BNLH.shape[2], k_BNLH.shape[2])
        out_BNLH = F.scaled_dot_product_attention(
            q_BNLH, k_BNLH, v_BNLH, attn_mask=mask, scale=scale, enable_gqa=enable_gqa
        )
        return out_BNLH.transpose(1, 2)


def _dense(block_mask: BlockMask, batch: int, q_len: int, kv_len: int) -> torch.Tensor:
    """[batch, 1, q_len, kv_len] of bool. All layers of a step share one block mask, and so one dense one."""
    dense: torch.Tensor | None = getattr(block_mask, "_xgen_dense", None)
    if dense is None:
        q, kv, head = torch.arange(q_len)[:, None], torch.arange(kv_len)[None, :], torch.tensor(0)
        rows = [block_mask.mask_mod(torch.tensor(row), head, q, kv) for row in range(batch)]
        dense = torch.stack([row.expand(q_len, kv_len) for row in rows])[:, None]
        block_mask._xgen_dense = dense  # type: ignore[attr-defined]
    return dense


@override(target=FlexAttention.Config, exact=True, description="dense-mask SDPA where FlexAttention has no backward")
def dense_on_cpu(config: FlexAttention.Config) -> FlexAttention.Config:
    if not ON_CPU:
        return config
    return DenseMaskAttention.Config(**{f.name: getattr(config, f.name) for f in fields(config) if f.init})
