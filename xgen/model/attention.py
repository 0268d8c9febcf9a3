"""FlexAttention for machines without accelerator: it has no backward on the CPU, so a dense mask stands in.

Applied by torchtitan's own override mechanism (`torchtitan/config/override.py`); `isinstance(FlexAttention)` still
holds, so masks and sharding treat it alike. Quadratic memory in the sequence length: for short sequences.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, create_mask
from torchtitan.config.override import override
from torchtitan.models.common import attention as titan_attention
from torchtitan.models.common.attention import FlexAttention

from xgen.model.device import ON_CPU

if ON_CPU:
    # Compiling it takes 20 s at the first step of every attempt, and saves nothing at the lengths a CPU can train.
    titan_attention._compiled_create_block_mask = create_block_mask


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
        dense = create_mask(block_mask.mask_mod, batch, 1, q_len, kv_len, device="cpu")
        block_mask._xgen_dense = dense  # type: ignore[attr-defined]
    return dense


@override(target=FlexAttention.Config, exact=True, description="dense-mask SDPA where FlexAttention has no backward")
def dense_on_cpu(config: FlexAttention.Config) -> FlexAttention.Config:
    if not ON_CPU:
        return config
    return DenseMaskAttention.Config(**{f.name: getattr(config, f.name) for f in fields(config) if f.init})
