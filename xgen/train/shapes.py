"""Attention and RMSNorm that only make the tensors which their GPU kernels would: for fake tensors on a CPU.

There FlexAttention would be compiled first, varlen has no kernel, and RMSNorm would fall apart into steps in fp32,
whose tensors no GPU keeps.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torchtitan.config.override import override
from torchtitan.models.common import RMSNorm
from torchtitan.models.common.attention import FlexAttention, VarlenAttention
from torchtitan.protocols.module import Module


class _Kernel:
    """Keeps queries, keys, values, output and the fp32 log-sum-exp for the backward pass, as the kernels do."""

    def forward(self, q_BLNH: torch.Tensor, k_BLNH: torch.Tensor, v_BLNH: torch.Tensor, **unused: Any) -> torch.Tensor:
        del unused
        q_BNLH, k_BNLH, v_BNLH = (t.transpose(1, 2) for t in (q_BLNH, k_BLNH, v_BLNH))
        # On fake tensors a kernel of CUDA is its shapes; selective checkpointing knows it, and keeps its output.
        out_BNLH: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention(q_BNLH, k_BNLH, v_BNLH, 0.0, True)[
            0
        ]
        return out_BNLH.transpose(1, 2)


class FlexShapes(_Kernel, FlexAttention):
    @dataclass(kw_only=True, slots=True)
    class Config(FlexAttention.Config):
        pass


class VarlenShapes(_Kernel, VarlenAttention):
    @dataclass(kw_only=True, slots=True)
    class Config(VarlenAttention.Config):
        pass

    def __init__(self, config: Config) -> None:
        del config
        Module.__init__(self)  # VarlenAttention's would activate a kernel of torch's


class _FusedNorm(torch.autograd.Function):
    """Keeps its input and an fp32 number a row."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight, x[..., :1].float())
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, weight, _ = ctx.saved_tensors
        del grads
        return torch.empty_like(x), torch.empty_like(weight)


class NormShapes(RMSNorm):
    @dataclass(kw_only=True, slots=True)
    class Config(RMSNorm.Config):
        pass

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = _FusedNorm.apply(x, self.weight)
        return out


def _as(kind: Any, config: Any) -> Any:
    return kind.Config(**{field.name: getattr(config, field.name) for field in fields(config) if field.init})


@override(target=FlexAttention.Config, exact=True, description="shapes only")
def flex(config: FlexAttention.Config) -> FlexAttention.Config:
    return _as(FlexShapes, config)


@override(target=VarlenAttention.Config, exact=True, description="shapes only")
def varlen(config: VarlenAttention.Config) -> VarlenAttention.Config:
    return _as(VarlenShapes, config)


@override(target=RMSNorm.Config, exact=True, description="shapes only")
def norm(config: RMSNorm.Config) -> RMSNorm.Config:
    return _as(NormShapes, config)
