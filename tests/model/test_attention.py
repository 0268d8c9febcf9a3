"""What stands in for FlexAttention and varlen attention on a CPU: a dense mask, blocks of it, single documents."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import and_masks, create_mask

from xgen.model.attention import DocumentAttention, MaskedAttention, _ByBlocks, _dense, _without_blocks

LENGTH = 256


def causal(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
    del b, h
    return q >= kv


def packed(batch: int) -> torch.Tensor:
    """Positions of rows of three documents that lie otherwise in each row."""
    starts = [(0, 100 - 7 * row, 170 + row) for row in range(batch)]
    rows = [[index - max(s for s in start if s <= index) for index in range(LENGTH)] for start in starts]
    return torch.tensor(rows)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_token_sees_what_came_before_it_in_its_document(batch: int) -> None:
    positions = packed(batch)
    from torchtitan.models.common.attention import get_efficient_causal_mask_mod_for_packed_document

    mask_mod = and_masks(causal, get_efficient_causal_mask_mod_for_packed_document(positions))
    dense = _dense(_without_blocks(mask_mod, batch, None, LENGTH, LENGTH, device="cpu"), batch, LENGTH, LENGTH)
    document, index = (positions == 0).cumsum(1), torch.arange(LENGTH)
    expected = (document[:, :, None] == document[:, None, :]) & (index[:, None] >= index)
    assert torch.equal(dense[:, 0], expected)
    assert torch.equal(dense, create_mask(mask_mod, batch, 1, LENGTH, LENGTH, device="cpu"))


def test_a_rank_of_context_parallelism_has_the_rows_of_its_queries() -> None:
    """As torch's context parallelism rewrites a mask: local query indices, and an order that balances the load."""
    order = torch.arange(LENGTH).flip(0)[None]

    def of_second_rank(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        return causal(b, h, order[b][q + LENGTH // 2], order[b][kv])

    dense = _dense(_without_blocks(of_second_rank, 1, None, LENGTH // 2, LENGTH), 1, LENGTH // 2, LENGTH)
    whole = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    assert torch.equal(dense[0, 0], whole.flip(0, 1)[LENGTH // 2 :])


def test_layers_of_a_step_share_one_dense_mask() -> None:
    mask = _without_blocks(causal, 1, None, LENGTH, LENGTH)
    assert _dense(mask, 1, LENGTH, LENGTH) is _dense(mask, 1, LENGTH, LENGTH)


@pytest.mark.parametrize("length", [1025, 1536, 3000])
@pytest.mark.parametrize("documents", [1, 7, 100])
def test_blocks_are_the_whole_mask(length: int, documents: int) -> None:
    """Values and gradients of SDPA over the mask written out, with grouped queries and two rows."""
    generator = torch.Generator().manual_seed(length + documents)
    shape = (2, 4, length, 8)
    inputs = [torch.randn(2, heads, length, 8, generator=generator, dtype=torch.double) for heads in (4, 2, 2)]
    borders = torch.randint(1, length, (2, documents - 1), generator=generator).sort().values
    document = torch.searchsorted(borders, torch.arange(length).repeat(2, 1), right=True)
    grad = torch.randn(shape, generator=generator, dtype=torch.double)

    def seen(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        return (q >= kv) & (document[b, q] == document[b, kv])

    attend = partial(F.scaled_dot_product_attention, enable_gqa=True)
    mask = _without_blocks(seen, 2, None, length, length)
    results = []
    for by_blocks in (True, False):
        qkv = [t.clone().requires_grad_() for t in inputs]
        if by_blocks:
            out = _ByBlocks.apply(*qkv, mask, attend)
        else:
            out = attend(*qkv, attn_mask=_dense(mask, 2, length, length))
        results.append([out, *torch.autograd.grad(out, qkv, grad)])
    for ours, whole in zip(*results, strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-10, atol=1e-12)


def test_documents_one_after_the_other_are_the_masked_whole() -> None:
    """Varlen's stand-in against FlexAttention's, from the same positions, with grouped queries."""
    from torchtitan.models.common.attention import (
        create_varlen_metadata_for_document,
        get_efficient_causal_mask_mod_for_packed_document,
    )

    positions = packed(3)
    mask_mod = and_masks(causal, get_efficient_causal_mask_mod_for_packed_document(positions))
    qkv = [torch.randn(3, LENGTH, heads, 8, dtype=torch.double, requires_grad=True) for heads in (4, 2, 2)]
    masks = (
        _without_blocks(mask_mod, 3, None, LENGTH, LENGTH),
        create_varlen_metadata_for_document(positions),
    )
    outs = [
        attention.Config().build()(*qkv, attention_masks=mask, enable_gqa=True)
        for attention, mask in zip((MaskedAttention, DocumentAttention), masks, strict=True)
    ]
    torch.testing.assert_close(*outs)
    grads = [torch.autograd.grad(out, qkv, torch.ones_like(out)) for out in outs]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)
