"""The engine on one NVIDIA GPU, in bf16: its numbers beside float64, at lengths of several parts, without a mask."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import pytest
import torch
import torch.nn.functional as F

from xgen.engine import Completion, Request, Sampling
from xgen.engine.attention import Piece
from xgen.engine.cache import Cache
from xgen.engine.causal import BLOCK, Causal, by_cudnn, causal, flash, masked
from xgen.engine.inprocess import InProcessEngine
from xgen.engine.losses import token_losses
from xgen.model.hf import parameter_shapes
from xgen.spec import ModelSpec

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")]

MODEL = ModelSpec(name="small", dim=512, num_layers=4, num_heads=8, num_kv_heads=2, ffn_dim=1024, vocab_size=4096)
THETA, SEQ_LEN = 1e6, 131_072
LONG = 20_000  # three parts
GPU = torch.device("cuda")


@pytest.fixture(scope="module")
def weights() -> Mapping[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def drawn(shape: tuple[int, ...]) -> torch.Tensor:
        if len(shape) == 1:
            return torch.rand(shape, generator=generator) + 0.5
        return torch.randn(shape, generator=generator) / math.sqrt(shape[1])

    return {name: drawn(shape).to(GPU, torch.bfloat16) for name, shape in parameter_shapes(MODEL).items()}


@pytest.fixture(scope="module")
def engine(weights: Mapping[str, torch.Tensor]) -> Iterator[InProcessEngine]:
    engine = InProcessEngine(MODEL, SEQ_LEN, THETA, at_once=8, device=GPU)
    engine.load(0, weights.items())
    yield engine
    engine.close()


def text(count: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(torch.randint(4096, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


@torch.inference_mode()
def exact_losses(
    weights: Mapping[str, torch.Tensor], tokens: Sequence[int], dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """Written out, a head at a time, scores and all; of every token but the first."""
    ids = torch.tensor(tokens, device=GPU)
    w = {name: tensor.to(dtype) for name, tensor in weights.items()}
    pairs = torch.arange(0, MODEL.head_dim, 2, dtype=torch.float64, device=GPU)
    angles = torch.arange(len(ids), device=GPU)[:, None] / THETA ** (pairs / MODEL.head_dim)
    cos, sin = angles.cos()[:, None].to(dtype), angles.sin()[:, None].to(dtype)
    unseen = torch.ones(len(ids), len(ids), dtype=torch.bool, device=GPU).triu(1)

    def turned(x: torch.Tensor) -> torch.Tensor:
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(2)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.rms_norm(x, (MODEL.dim,), w[name], MODEL.norm_eps)

    x = w["tok_embeddings.weight"][ids]
    for number in range(MODEL.num_layers):
        of = f"layers.{number}."
        y = norm(x, f"{of}attention_norm.weight")
        q, k, v = (
            (y @ w[f"{of}attention.qkv_linear.{name}.weight"].T).view(len(ids), -1, MODEL.head_dim)
            for name in ("wq", "wk", "wv")
        )
        q, k = turned(q), turned(k)
        heads = []
        for head in range(MODEL.num_heads):
            of_kv = head * MODEL.num_kv_heads // MODEL.num_heads
            scores = (q[:, head] @ k[:, of_kv].T).mul_(MODEL.head_dim**-0.5).masked_fill_(unseen, -torch.inf)
            heads.append(scores.softmax(-1) @ v[:, of_kv])
        x = x + torch.cat(heads, 1) @ w[f"{of}attention.wo.weight"].T
        y = norm(x, f"{of}ffn_norm.weight")
        gate, up = (y @ w[f"{of}feed_forward.{name}.weight"].T for name in ("w1", "w3"))
        x = x + (F.silu(gate) * up) @ w[f"{of}feed_forward.w2.weight"].T
    logits = norm(x, "norm.weight")[:-1] @ w["lm_head.weight"].T
    losses = F.cross_entropy(logits.float() if dtype != torch.float64 else logits, ids[1:], reduction="none")
    return losses.cpu().double()


@pytest.mark.parametrize("count", [2, 300, 5_000, LONG])
def test_losses_are_as_near_to_float64_as_plain_arithmetic_in_bf16(
    weights: Mapping[str, torch.Tensor], engine: InProcessEngine, count: int
) -> None:
    exact = exact_losses(weights, text(count))
    usual = exact_losses(weights, text(count), torch.bfloat16) if count < LONG else None
    found = next(token_losses(engine._decoder, [text(count)], "")).double()
    apart = (found - exact).abs()
    assert count < 10 or exact.std() > 0.3  # it is no flat model
    assert apart.mean() < 0.02
    if usual is not None:
        assert apart.mean() <= 1.5 * (usual - exact).abs().mean() + 1e-3
    assert apart[-200:].mean() < 0.02  # the last part sees all that was before


def test_many_texts_in_one_pass_have_the_losses_of_each_alone(engine: InProcessEngine) -> None:
    texts = [text(count, count) for count in (5, 700, 1, 64, 3_000, 9_000, 0, 128, 129)]
    together = list(token_losses(engine._decoder, texts, ""))
    assert [len(losses) for losses in together] == [max(0, len(one) - 1) for one in texts]
    for one, losses in zip(texts, together, strict=True):
        alone = next(token_losses(engine._decoder, [one], ""))
        torch.testing.assert_close(losses, alone, rtol=0, atol=0.1)
        assert len(one) < 2 or (losses - alone).abs().mean() < 0.01


@pytest.mark.parametrize(("num_tokens", "kernel"), [(BLOCK, "cudnn"), (2_000, "flash")])
def test_the_end_of_a_long_prompt_is_computed_by_a_fast_kernel_and_without_a_mask(
    engine: InProcessEngine, num_tokens: int, kernel: str
) -> None:
    decoder = engine._decoder
    cache = Cache(MODEL, GPU, torch.bfloat16, "")
    cache.reserve(1, SEQ_LEN, SEQ_LEN)
    piece = Piece(0, SEQ_LEN - num_tokens, text(num_tokens))
    decoder.prefill(cache, [piece])  # what is made once
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        decoder.prefill(cache, [piece])
        torch.cuda.synchronize()
    kernels = {event.key for event in profile.key_averages()}
    if kernel == "flash" or causal(MODEL.head_dim, GPU, torch.bfloat16) is by_cudnn:
        assert any(kernel in name for name in kernels), kernels
    assert torch.cuda.max_memory_allocated() - before < num_tokens * SEQ_LEN  # bytes: a mask of one byte has as many


@pytest.mark.parametrize(
    ("attend", "num_tokens", "length"),
    [
        (flash, 1, 1), (flash, 1, 5_000), (flash, 3, 200), (flash, 2_048, 2_048), (flash, 2_048, 9_000),
        (by_cudnn, BLOCK, BLOCK), (by_cudnn, BLOCK, 2 * BLOCK), (by_cudnn, BLOCK, 4 * BLOCK), (by_cudnn, 300, 20_000),
    ],
)  # fmt: skip
def test_every_kernel_gives_attention_with_a_mask(attend: Causal, num_tokens: int, length: int) -> None:
    """Held against float64, a few of its queries at a time."""
    if causal(128, GPU, torch.bfloat16) not in (attend, by_cudnn):
        pytest.skip("this GPU has no such kernel")
    generator = torch.Generator().manual_seed(1)
    q, k, v = (
        torch.randn(heads, count, 128, generator=generator).to(GPU, torch.bfloat16)
        for heads, count in ((24, num_tokens), (8, length), (8, length))
    )
    found = attend(q, k, v)
    for begin in {0, num_tokens // 2, max(0, num_tokens - 64)}:
        some, seen = slice(begin, begin + 64), length - num_tokens + min(begin + 64, num_tokens)
        exact = masked(*(t.double() for t in (q[:, some], k[:, :seen], v[:, :seen])))
        allowed = 3 * (masked(q[:, some], k[:, :seen], v[:, :seen]) - exact).norm()
        assert (found[:, some] - exact).norm() <= allowed


@pytest.mark.parametrize("length", [60, 1_010, 4_090, LONG])
def test_greedy_answers_are_the_likeliest_tokens_by_float64(
    weights: Mapping[str, torch.Tensor], engine: InProcessEngine, length: int
) -> None:
    prompts = [text(length, seed) for seed in range(3)] + [text(17)]
    for number, prompt in enumerate(prompts):
        engine.submit(Request(str(number), prompt, 0, Sampling(24, temperature=0)))
    found: dict[str, Completion] = {}
    while ended := engine.completed(60):
        found |= {completion.id: completion for completion in ended}
    for number, prompt in list(enumerate(prompts))[-2:]:
        answer = found[str(number)]
        exact = exact_losses(weights, prompt + answer.tokens)[-24:]
        torch.testing.assert_close(-torch.tensor(answer.logprobs).double(), exact, rtol=0, atol=0.15)


def test_answers_beside_a_much_longer_one_are_those_that_they_are_alone(engine: InProcessEngine) -> None:
    requests = [Request(str(n), text(n, n), 0, Sampling(16, temperature=0)) for n in (40, 6_000, 30_000, 2_000)]
    for request in requests:
        engine.submit(request)
    together: dict[str, Completion] = {}
    while ended := engine.completed(60):
        together |= {completion.id: completion for completion in ended}
    for request in requests:
        engine.submit(request)
        (alone,) = engine.completed(60)
        pairs = zip(together[request.id].tokens, alone.tokens, strict=True)
        same = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
        logprobs = [torch.tensor(one.logprobs[:same]) for one in (together[request.id], alone)]
        assert same >= 1
        torch.testing.assert_close(*logprobs, rtol=0, atol=0.1)
