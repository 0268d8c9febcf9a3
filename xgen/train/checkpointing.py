"""Selective activation checkpointing that keeps what flash-attn computed: torchtitan keeps it of its own kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torchtitan.distributed.activation_checkpoint import SelectiveAC


class SelectiveCheckpointing(SelectiveAC):
    @dataclass(kw_only=True, slots=True)
    class Config(SelectiveAC.Config):
        pass

    def get_save_ops(self) -> set[Any]:
        # The package registers it when it is imported, which building the model does (flash_attn_interface.py, 2.7 on).
        kernel = getattr(torch.ops.flash_attn, "_flash_attn_varlen_forward", None)
        ops: set[Any] = super().get_save_ops()
        return ops | {kernel.default} if kernel else ops
