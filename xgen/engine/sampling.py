"""Drawing tokens, each by one uniform number that its request's seed and its place in the answer fix."""

from __future__ import annotations

import torch
import torch.nn.functional as F

_MASK = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15  # splitmix64 (Steele et al., OOPSLA 2014), which counts in such steps and mixes the count
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31
_BITS = 24  # of a uniform number: all that float32 holds
_BLOCK = 64  # tokens whose weights are summed before it is looked which of them is drawn


def stream_key(seed: int) -> int:
    """Where the stream of a seed begins, as a signed 64-bit integer; neighbouring seeds begin far apart."""
    mixed = (seed + _STEP) & _MASK
    for shift, factor in _MIX:
        mixed = ((mixed ^ (mixed >> shift)) * factor) & _MASK
    return _signed(mixed ^ (mixed >> _LAST_SHIFT))


def uniforms(key_N: torch.Tensor, number_N: torch.Tensor) -> torch.Tensor:
    """[N] of float32 in [0, 1): of each stream, by `stream_key`, the number of that index (both int64)."""
    mixed = (number_N + 1) * _signed(_STEP) + key_N
    for shift, factor in _MIX:
        mixed = (mixed ^ _shift_right(mixed, shift)) * _signed(factor)
    mixed ^= _shift_right(mixed, _LAST_SHIFT)
    return _shift_right(mixed, 64 - _BITS).float().mul_(1 / (1 << _BITS))


def _shift_right(values: torch.Tensor, bits: int) -> torch.Tensor:
    """As if unsigned: torch's own shift repeats the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def draw(
    logits_NV: torch.Tensor,
    temperature_N: torch.Tensor,
    top_p_N: torch.Tensor,
    uniform_N: torch.Tensor,
    greedy: torch.Tensor | None = None,
    nucleus: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [N] and their log-probabilities [N] under softmax(logits / temperature), before top_p; float32. The logits
    are overwritten.

    `greedy`: the rows whose temperature is 0, `nucleus`: those whose top_p is below 1; None where there are none.
    Neither changes a token of another row.
    """
    if greedy is not None:
        likeliest = logits_NV[greedy].argmax(-1)
        temperature_N = temperature_N.index_fill(0, greedy, 1)
    weight_NV = logits_NV.div_(temperature_N[:, None])  # in place: fresh memory of this size costs more than the sums
    weight_NV.sub_(weight_NV.amax(-1, keepdim=True)).exp_()
    token_N, whole_N = _invert(weight_NV, uniform_N)
    if nucleus is not None:
        token_N[nucleus] = _of_nucleus(weight_NV[nucleus], top_p_N[nucleus] * whole_N[nucleus], uniform_N[nucleus])
    if greedy is not None:
        token_N[greedy] = likeliest
    return token_N, (weight_NV.gather(1, token_N[:, None])[:, 0] / whole_N).log()


def _of_nucleus(weight_NV: torch.Tensor, least_N: torch.Tensor, uniform_N: torch.Tensor) -> torch.Tensor:
    """The likeliest tokens whose weights reach `least` together, the one that reaches it included (arXiv 1904.09751);
    the first always."""
    sorted_NV, order_NV = weight_NV.sort(stable=True, dim=-1, descending=True)
    before_NV = sorted_NV.cumsum(-1) - sorted_NV
    index_N, _ = _invert(sorted_NV.masked_fill_(before_NV >= least_N[:, None], 0), uniform_N)
    return order_NV.gather(1, index_N[:, None])[:, 0]


def _invert(weight_NV: torch.Tensor, uniform_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first index at which the sum of weights exceeds the uniform share of all, and that of all. By blocks, as a
    running sum over everything is slow. The weight of the index is above 0."""
    if rest := weight_NV.shape[1] % _BLOCK:
        weight_NV = F.pad(weight_NV, (0, _BLOCK - rest))
    blocks_NKB = weight_NV.view(len(weight_NV), -1, _BLOCK)
    of_block_NK = blocks_NKB.sum(-1)
    until_NK = of_block_NK.cumsum(-1)
    whole_N = until_NK[:, -1]
    wanted_N1 = (uniform_N * whole_N)[:, None]
    block_N1 = torch.searchsorted(until_NK, wanted_N1, right=True).clamp_(max=until_NK.shape[1] - 1)
    before_N1 = F.pad(until_NK, (1, 0)).gather(1, block_N1)
    within_NB = blocks_NKB.gather(1, block_N1[:, :, None].expand(-1, -1, _BLOCK))[:, 0].cumsum(-1)
    # The block's own sums may come to a little less than the sum over blocks says.
    least_N1 = torch.minimum(wanted_N1 - before_N1, within_NB[:, -1:].nextafter(torch.zeros_like(wanted_N1)))
    index_N1 = torch.searchsorted(within_NB, least_N1, right=True).clamp_(max=_BLOCK - 1)
    return (block_N1 * _BLOCK + index_N1)[:, 0], whole_N
