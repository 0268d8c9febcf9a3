"""Products with a weight, by the kernels that are fast for it.

On CPUs torch's products in float32 are MKL's, which on AMD takes 2.4 times as long as oneDNN with a weight that it has
laid out once (256 x 1408, 64 rows, one core: 107 and 240 GFLOP/s). That torch has it for compiled models only, under
names of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


class Matrix:
    """A weight [out, in]. Write to `dense`, and then call `settle`."""

    def __init__(self, num_out: int, num_in: int, device: torch.device, dtype: torch.dtype) -> None:
        self.dense = torch.empty(num_out, num_in, device=device, dtype=dtype)
        self._is_for_onednn = device.type == "cpu" and dtype == torch.float32 and torch._C._has_mkldnn
        self._laid_out: torch.Tensor | None = None

    def settle(self) -> None:
        """What `dense` holds is what counts."""
        if self._is_for_onednn:
            self._laid_out = torch.ops.mkldnn._reorder_linear_weight(self.dense, None)

    def times(self, x: torch.Tensor, plus: torch.Tensor | None = None) -> torch.Tensor:
        """[rows, out] of x [rows, in]; `plus` is added, where there is one."""
        if self._laid_out is None:
            return F.linear(x, self.dense) if plus is None else torch.addmm(plus, x, self.dense.t())
        operation = torch.ops.mkldnn._linear_pointwise
        product: torch.Tensor
        if plus is None:
            product = operation(x, self._laid_out, None, "none", [], "")
        else:
            product = operation.binary(x, plus, self._laid_out, None, "add")
        return product

    def in_float32(self, x: torch.Tensor) -> torch.Tensor:
        """The product as it was summed, where that is to be had: in bf16 logits of 16 are 0.06 apart."""
        if x.device.type == "cuda" and x.dtype.itemsize == 2:
            return torch.mm(x, self.dense.t(), out_dtype=torch.float32)
        return self.times(x).float()
