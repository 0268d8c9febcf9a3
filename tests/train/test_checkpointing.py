"""What selective checkpointing computes a second time: the cheap parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch


def test_flash_attn_is_not_computed_again(_warm: None) -> None:
    from torchtitan.distributed.activation_checkpoint import SelectiveAC

    from xgen.train.checkpointing import SelectiveCheckpointing

    calls: list[int] = []

    @torch.library.custom_op("flash_attn::_flash_attn_varlen_forward", mutates_args=())
    def kernel(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return x.exp()

    kernel.register_autograd(
        lambda ctx, grad: grad * ctx.saved_tensors[0],
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(output),  # noqa: ARG005 - torch's names
    )

    class Block(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            attended: torch.Tensor = kernel(x)
            return attended.sin()

    def num_calls(policy: Any) -> int:
        calls.clear()
        x = torch.ones(4, requires_grad=True)
        policy.Config().build()._wrap_block(Block())(x).sum().backward()
        assert x.grad is not None
        assert x.grad.tolist() == pytest.approx((x.exp().cos() * x.exp()).tolist())
        return len(calls)

    assert (num_calls(SelectiveAC), num_calls(SelectiveCheckpointing)) == (2, 1)
