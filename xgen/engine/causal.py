"""Attention of the last T of L tokens, each to all up to itself, by kernels that need no mask: for 2,048 tokens at 128k
one has 256 MB, and SDPA turns it into numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F

# (queries [heads, T, head_dim], keys and values [kv_heads, L, head_dim]) -> [heads, T, head_dim]
Causal = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
# What some keys give, and the logarithms of what they sum up to: [heads, T, head_dim] and [heads, T]
Part = tuple[torch.Tensor, torch.Tensor]

BLOCK = 8192  # tokens whose attention cuDNN computes at a time: it builds a kernel for every shape
_HOPPER, _BLACKWELL = 9, 10

_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention
_CUDNN = torch.ops.aten._scaled_dot_product_cudnn_attention


def causal(head_dim: int, device: torch.device, dtype: torch.dtype) -> Causal:
    """The fastest that there is."""
    if device.type == "cpu":
        return on_cpu
    if not has_flash(head_dim, device, dtype):
        return masked
    return by_cudnn if head_dim <= 128 and _has_cudnn(device) else flash


def has_flash(head_dim: int, device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cuda" and dtype.itemsize == 2 and head_dim % 8 == 0


def _has_cudnn(device: torch.device) -> bool:
    """Where torch itself prefers it (torch/nn/attention/varlen.py); on an H100 it takes half of flash's time."""
    version: int | None = None if torch.version.hip else torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    major, _ = torch.cuda.get_device_capability(device)
    return version is not None and version >= 91800 and major in (_HOPPER, _BLACKWELL)


def by_cudnn(q_NTH: torch.Tensor, k_NLH: torch.Tensor, v_NLH: torch.Tensor) -> torch.Tensor:
    """Whole blocks of tokens; what is left over at the end of a text goes to `flash`. The blocks before are taken by
    powers of two, so that six kernels are enough up to 256k."""
    num_tokens, length = q_NTH.shape[1], k_NLH.shape[1]
    if num_tokens != BLOCK or length % BLOCK:
        return flash(q_NTH, k_NLH, v_NLH)

    def part(start: int, stop: int, is_causal: bool) -> Part:
        k, v = k_NLH[None, :, start:stop], v_NLH[None, :, start:stop]
        out, log_sum, *_ = _CUDNN(q_NTH[None], k, v, None, True, 0.0, is_causal)
        return out[0], log_sum.reshape(q_NTH.shape[:2])

    before, parts = length - BLOCK, []
    while before:
        taken = BLOCK << ((before // BLOCK).bit_length() - 1)
        parts.append(part(before - taken, before, is_causal=False))
        before -= taken
    return _merged([part(length - BLOCK, length, is_causal=True), *parts])


def flash(q_NTH: torch.Tensor, k_NLH: torch.Tensor, v_NLH: torch.Tensor) -> torch.Tensor:
    """Of any length. By name, since SDPA may prefer cuDNN; `is_causal` means the last of the tokens here
    (torch/nn/attention/bias.py)."""
    out_1NTH: torch.Tensor = _FLASH(q_NTH[None], k_NLH[None], v_NLH[None], 0.0, True)[0]
    return out_1NTH[0]


def on_cpu(q_NTH: torch.Tensor, k_NLH: torch.Tensor, v_NLH: torch.Tensor) -> torch.Tensor:
    num_heads, num_tokens, head_dim = q_NTH.shape
    kv_heads, before = len(k_NLH), k_NLH.shape[1] - num_tokens

    def part(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, is_causal: bool) -> Part:
        out, log_sum = _CPU(q[None], k[None], v[None], 0.0, is_causal)
        return out.reshape(q_NTH.shape), log_sum.reshape(q_NTH.shape[:2])

    own_k, own_v = (t[:, before:].repeat_interleave(num_heads // kv_heads, 0) for t in (k_NLH, v_NLH))
    parts = [part(q_NTH, own_k, own_v, is_causal=True)]
    if before:
        queries = q_NTH.reshape(kv_heads, -1, head_dim)  # of one KV head as those of one head: each sees all
        parts.append(part(queries, k_NLH[:, :before], v_NLH[:, :before], is_causal=False))
    return _merged(parts)


def _merged(parts: Iterable[Part]) -> torch.Tensor:
    """As if it had been one attention to all of their keys."""
    (first, log_sum), *others = parts
    if not others:
        return first
    out = first.float()
    for other, other_log_sum in others:
        out = torch.lerp(out, other.float(), torch.sigmoid(other_log_sum - log_sum)[:, :, None])
        log_sum = torch.logaddexp(log_sum, other_log_sum)
    return out.to(first.dtype)


def masked(q_NTH: torch.Tensor, k_NLH: torch.Tensor, v_NLH: torch.Tensor) -> torch.Tensor:
    """For float32 on GPUs, where SDPA has no better."""
    num_tokens, length = q_NTH.shape[1], k_NLH.shape[1]
    positions = torch.arange(length, device=q_NTH.device)
    mask_TL = positions[length - num_tokens :, None] >= positions
    return F.scaled_dot_product_attention(q_NTH[None], k_NLH[None], v_NLH[None], attn_mask=mask_TL, enable_gqa=True)[0]
