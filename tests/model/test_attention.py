"""The dense mask that stands in for FlexAttention's blocks."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention.flex_attention import and_masks, create_mask

from xgen.model.attention import _dense, _without_blocks

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
