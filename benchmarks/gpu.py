"""One GPU, one command: `python -m benchmarks.gpu [--json] [--lengths 4k,32k,128k] [--device cpu]`.

First each attention backend is held against attention in float64: documents in a row, grouped queries, values and
gradients. The error may be three times that of the plain softmax in the same precision, not more. Then the 4B, and as
many layers of the 9B as `--layers` says, run forward and backward on one document of each length, with every layer
compiled, computed again in the backward pass, and the loss in chunks: tokens/s, model FLOP/s utilisation and peak
memory. Weights and gradients are bf16, and there is no optimizer: `benchmarks.gpu_train` is the trainer itself. This
needs torch 2.11 or newer, and not torchtitan: the layers are written out here. What is not installed, or does not fit,
is said and left out.

FLOPs of a token: 6 a parameter and 6 x layers x width x length for causal attention (PaLM, arXiv 2204.02311,
appendix B, halved for the mask); what is computed again does not count.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmarks.common import Figure, Result
from xgen.spec.models import MODELS, ModelSpec

PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12}  # dense bf16, NVIDIA's data sheets
SLICE, REPEATS, WARM_UP, DENSE_UP_TO = 8, 5, 2, 8192

# [1, heads, length, head_dim] each, and the lengths of the documents in the row
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Check:
    """Largest error over the largest value of the reference, in the output and the three gradients."""

    backend: str
    error: float
    allowed: float

    @property
    def ok(self) -> bool:
        return self.error <= self.allowed


def documents_of(length: int) -> list[int]:
    """An eighth, an eighth, a quarter and a half, and one token that is alone."""
    parts = [length // 8, length // 8, length // 4, length // 2 - 1]
    return [*parts, length - sum(parts)]


def _same_document(documents: list[int], device: str) -> torch.Tensor:
    """[length]: the number of the document that a token is in."""
    return torch.repeat_interleave(torch.arange(len(documents)), torch.tensor(documents)).to(device)


def plain(documents: list[int], device: str) -> Attention:
    """Softmax over the scores written out."""
    document = _same_document(documents, device)
    mask = (document[:, None] == document).tril()

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
        scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(~mask, float("-inf"))
        return scores.softmax(-1) @ v

    return attend


def sdpa(documents: list[int], device: str) -> Attention:
    if sum(documents) > DENSE_UP_TO:
        raise NotImplementedError(f"a dense mask above {DENSE_UP_TO} tokens")
    document = _same_document(documents, device)
    mask = (document[:, None] == document).tril()
    return partial(F.scaled_dot_product_attention, attn_mask=mask, enable_gqa=True)


def flex(documents: list[int], device: str) -> Attention:
    if device == "cpu":
        raise NotImplementedError("FlexAttention has no backward on a CPU")
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    document, length = _same_document(documents, device), sum(documents)

    def seen(b: Any, h: Any, q: Any, kv: Any) -> Any:
        del b, h
        return (q >= kv) & (document[q] == document[kv])

    blocks = torch.compile(create_block_mask)(seen, None, None, length, length, device=device)
    return partial(torch.compile(flex_attention), block_mask=blocks, enable_gqa=True)


def varlen(documents: list[int], device: str) -> Attention:
    if device == "cpu":
        raise NotImplementedError("varlen_attn has no kernel on a CPU")
    from torch.nn.attention.varlen import varlen_attn

    borders, longest = _borders(documents, device), max(documents)
    # torch 2.11 takes grouped queries as they are, a later one wants to be told, and knows the window by another name.
    known = signature(varlen_attn).parameters
    options = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    options |= {"enable_gqa": True} if "enable_gqa" in known else {}

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        packed = (t[0].transpose(0, 1).contiguous() for t in (q, k, v))
        out = varlen_attn(*packed, borders, borders, longest, longest, **options)
        return out.transpose(0, 1)[None]  # type: ignore[union-attr]

    return attend


def flash(documents: list[int], device: str) -> Attention:
    if device == "cpu":
        raise NotImplementedError("flash-attn has no kernel on a CPU")
    from flash_attn import flash_attn_varlen_func

    borders, longest = _borders(documents, device), max(documents)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        packed = (t[0].transpose(0, 1).contiguous() for t in (q, k, v))
        out = flash_attn_varlen_func(*packed, borders, borders, longest, longest, causal=True)
        return out.transpose(0, 1)[None]  # type: ignore[no-any-return]

    return attend


def _borders(documents: list[int], device: str) -> torch.Tensor:
    return torch.tensor([0, *documents]).cumsum(0).to(device, torch.int32)


BACKENDS: dict[str, Callable[[list[int], str], Attention]] = {
    "flex": flex, "varlen": varlen, "flash": flash, "sdpa": sdpa,
}  # fmt: skip


def check(backend: str, device: str, length: int = 1024, dtype: torch.dtype = torch.bfloat16) -> Check:
    """Raises ImportError or NotImplementedError where the backend is not to be had."""
    documents = documents_of(length)
    attend = BACKENDS[backend](documents, device)
    generator = torch.Generator().manual_seed(1)
    qkv = [torch.randn(1, heads, length, 64, generator=generator).to(device, dtype) for heads in (8, 2, 2)]
    grad = torch.randn(1, 8, length, 64, generator=generator).to(device, dtype)
    exact = _values(plain(documents, device), [t.double() for t in qkv], grad.double())
    usual = _error(_values(plain(documents, device), qkv, grad), exact)
    return Check(backend, _error(_values(attend, qkv, grad), exact), 3 * usual)


def _values(attend: Attention, qkv: list[torch.Tensor], grad: torch.Tensor) -> list[torch.Tensor]:
    """The output and the gradients of queries, keys and values."""
    inputs = [t.clone().requires_grad_() for t in qkv]
    out = attend(*inputs)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad)]


def _error(found: list[torch.Tensor], exact: list[torch.Tensor]) -> float:
    pairs = zip(found, exact, strict=True)
    return max(float((one.double() - other).abs().max() / other.abs().max()) for one, other in pairs)


class Layer(nn.Module):
    """Of the Llama type: RMSNorm, grouped queries, rotary positions, SwiGLU."""

    def __init__(self, dim: int, heads: int, kv_heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.norms = nn.ModuleList(nn.RMSNorm(dim) for _ in range(2))
        self.qkv = nn.Linear(dim, (heads + 2 * kv_heads) * self.head_dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.up, self.gate = (nn.Linear(dim, ffn_dim, bias=False) for _ in range(2))
        self.down = nn.Linear(ffn_dim, dim, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, attend: Attention) -> torch.Tensor:
        """x: [1, length, dim]; cos, sin: [length, head_dim]."""
        qkv = self.qkv(self.norms[0](x)).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        q, k = (t * cos + torch.cat([-t.chunk(2, -1)[1], t.chunk(2, -1)[0]], -1) * sin for t in (q, k))
        x = x + self.out(attend(q, k, v).transpose(1, 2).flatten(2))
        y = self.norms[1](x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))  # type: ignore[no-any-return]


class Stack(nn.Module):
    """Embedding, layers, and the loss in eight chunks, of which one at a time has its logits."""

    def __init__(self, sizes: dict[str, Any], num_layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sizes["vocab_size"], sizes["dim"])
        shape = (sizes["dim"], sizes["num_heads"], sizes["num_kv_heads"], sizes["ffn_dim"])
        self.layers = nn.ModuleList(Layer(*shape) for _ in range(num_layers))
        self.norm = nn.RMSNorm(sizes["dim"])
        self.head = nn.Linear(sizes["dim"], sizes["vocab_size"], bias=False)

    def forward(self, tokens: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, attend: Attention) -> torch.Tensor:
        """tokens: [1, length]. Returns the summed loss."""
        x = self.embedding(tokens)
        for layer in self.layers:
            x = checkpoint(layer, x, cos, sin, attend, use_reentrant=False)
        parts = zip(self.norm(x)[0].chunk(8), tokens[0].chunk(8), strict=True)
        losses = [checkpoint(self._loss, hidden, labels, use_reentrant=False) for hidden, labels in parts]
        return torch.stack(losses).sum()

    def _loss(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.head(hidden).float(), labels, reduction="sum")


def flops_of_token(sizes: dict[str, Any], num_layers: int, length: int) -> float:
    return ModelSpec.model_validate(sizes | {"name": "slice", "num_layers": num_layers}).flops_per_token(length)


@dataclass(frozen=True)
class Run:
    tokens_per_second: list[float]
    flops: float  # a token
    peak_bytes: int


def measure(
    sizes: dict[str, Any], num_layers: int, length: int, backend: str, device: str, repeats: int = REPEATS
) -> Run:
    """On one document, of which every token sees all before it. Raises torch.OutOfMemoryError where it does not fit."""
    attend = BACKENDS[backend]([length], device)
    with torch.device(device):
        stack = Stack(sizes, num_layers).to(torch.bfloat16)
        tokens = torch.randint(0, sizes["vocab_size"], (1, length))
        head_dim = sizes["dim"] // sizes["num_heads"]
        angles = torch.arange(length)[:, None] / 1e6 ** (torch.arange(0, head_dim, 2) / head_dim)
        cos, sin = (f(angles).repeat(1, 2).to(torch.bfloat16) for f in (torch.cos, torch.sin))
    on_gpu = device != "cpu"
    if on_gpu:
        for layer in stack.layers:
            layer.compile()
    rates = []
    for number in range(WARM_UP + repeats):
        if on_gpu and number == WARM_UP:  # the first ones compile and fill the caches
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        stack(tokens, cos, sin, attend).backward()
        stack.zero_grad()
        if on_gpu:
            torch.cuda.synchronize()
        if number >= WARM_UP:
            rates.append(length / (time.perf_counter() - began))
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    return Run(rates, flops_of_token(sizes, num_layers, length), peak)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: the checks alone")
    parser.add_argument("--lengths", default="4k,32k,128k", help="tokens of the sequence (default: %(default)s)")
    parser.add_argument("--attention", choices=BACKENDS, action="append", help="default: all")
    parser.add_argument("--layers", type=int, default=SLICE, help="of the 9B (default: %(default)s)")
    parser.add_argument("--only", choices=("4b", "9b"), help="one of the models; default: both")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="timed passes (default: %(default)s)")
    parser.add_argument("--peak-tflops", type=float, help="of the GPU in bf16, where it is not known here")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU is here; write --device cpu for the checks alone")
    figures: dict[str, Figure] = {}
    goals: dict[str, float] = {}
    backends = []
    for backend in options.attention or BACKENDS:
        try:
            found = check(backend, options.device)
        except (ImportError, NotImplementedError) as error:
            print(f"{backend}: left out: {error}", file=sys.stderr)
            continue
        name = f"{backend}: error against float64"
        figures[name] = Figure.of([1000 * found.error], "thousandths")
        goals[name] = 1000 * found.allowed
        if found.ok:
            backends.append(backend)
        else:
            print(f"{backend}: wrong by {found.error:.2e}, {found.allowed:.2e} allowed; not timed", file=sys.stderr)
    if options.device == "cuda":
        _time_models(options, backends, figures)
    result = Result("gpu", figures, {}, goals)
    result.print(options.json)
    sys.exit(0 if all(result.met.values()) else 1)


def _time_models(options: argparse.Namespace, backends: list[str], figures: dict[str, Figure]) -> None:
    name = torch.cuda.get_device_name()
    peak = options.peak_tflops * 1e12 if options.peak_tflops else next((v for k, v in PEAK.items() if k in name), 0)
    if not peak:
        print(f"{name}: its FLOP/s are not known here; write --peak-tflops for the MFU", file=sys.stderr)
    models = {
        "4b": ("xgen-4b", MODELS["xgen-4b"]["num_layers"]),
        f"9b, {options.layers} layers": ("xgen-9b", options.layers),
    }
    for model, (key, num_layers) in models.items():
        if options.only and not model.startswith(options.only):
            continue
        for length in (
            int(text.rstrip("k")) * (1024 if text.endswith("k") else 1) for text in options.lengths.split(",")
        ):
            for backend in backends:
                at = f"{model}, {length}, {backend}"
                torch.cuda.empty_cache()
                try:
                    run = measure(MODELS[key], int(num_layers), length, backend, "cuda", options.repeats)
                except (torch.OutOfMemoryError, NotImplementedError) as error:
                    print(f"{at}: left out: {str(error).splitlines()[0]}", file=sys.stderr)
                    continue
                figures[f"{at}"] = Figure.of(run.tokens_per_second, "tokens/s")
                print(f"{at}: {figures[at]}", file=sys.stderr, flush=True)
                figures[f"{at}: peak"] = Figure.of([run.peak_bytes / 2**30], "GiB")
                if peak:
                    figures[f"{at}: MFU"] = Figure.of([100 * r * run.flops / peak for r in run.tokens_per_second], "%")


if __name__ == "__main__":
    main()
