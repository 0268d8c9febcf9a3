"""Which token is drawn: the uniform numbers, the share of each token, the nucleus."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xgen.engine.sampling import draw, stream_key, uniforms


def splitmix64(state: int) -> int:
    """Of Vigna's reference code: the output after one step."""
    mask = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


@given(seed=st.integers(0, 2**63 - 1), number=st.integers(0, 2**31))
def test_uniform_numbers_are_those_of_the_reference(seed: int, number: int) -> None:
    state = (splitmix64(seed) + number * 0x9E3779B97F4A7C15) % 2**64
    found = uniforms(torch.tensor([stream_key(seed)]), torch.tensor([number]))
    assert found.tolist() == [(splitmix64(state) >> 40) / 2**24]


def test_uniform_numbers_of_neighbouring_seeds_and_places_are_even_and_unrelated() -> None:
    keys = torch.tensor([stream_key(seed) for seed in range(400)])
    drawn = torch.stack([uniforms(keys, torch.full_like(keys, number)) for number in range(400)]).double()
    assert drawn.histc(20, 0, 1).std() / drawn.numel() * 20 < 0.03  # of a part: 0.011 is expected
    for dim in (0, 1):
        one, next_one = (drawn.narrow(dim, start, 399).flatten() for start in (0, 1))
        assert abs(torch.corrcoef(torch.stack((one, next_one)))[0, 1].item()) < 0.01


def drawn_of(
    logits: torch.Tensor, uniform: torch.Tensor, temperature: float = 1, top_p: float = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.arange(len(logits))
    return draw(
        logits.clone(),
        torch.full((len(logits),), float(temperature)),
        torch.full((len(logits),), top_p),
        uniform,
        rows if temperature == 0 else None,
        rows if top_p < 1 else None,
    )


@pytest.mark.parametrize("vocab_size", [5, 64, 1000])
@pytest.mark.parametrize(("temperature", "top_p"), [(1, 1), (0.6, 1), (1, 0.7), (1.5, 0.9)])
def test_tokens_are_drawn_as_often_as_they_are_likely(vocab_size: int, temperature: float, top_p: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(vocab_size) * 2
    expected = torch.softmax(logits.double() / temperature, -1)
    logprobs = expected.log()
    likeliest = expected.argsort(descending=True)
    kept = expected[likeliest].cumsum(0) - expected[likeliest] < top_p
    expected[likeliest[~kept]] = 0
    uniform = (torch.arange(4_000) + 0.5) / 4_000
    token, logprob = drawn_of(logits.expand(4_000, -1), uniform, temperature, top_p)
    shares = token.bincount(minlength=vocab_size) / 4_000
    torch.testing.assert_close(shares.double(), expected / expected.sum(), rtol=0, atol=6e-4)
    torch.testing.assert_close(logprob.double(), logprobs[token], rtol=0, atol=1e-5)


def test_the_likeliest_token_at_temperature_0_and_of_the_smallest_nucleus() -> None:
    torch.manual_seed(0)
    logits, uniform = torch.randn(50, 300), torch.rand(50)
    greedy, logprob = drawn_of(logits, uniform, temperature=0)
    assert torch.equal(greedy, logits.argmax(-1))
    torch.testing.assert_close(logprob, torch.log_softmax(logits, -1).amax(-1))
    assert torch.equal(drawn_of(logits, uniform, top_p=1e-9)[0], logits.argmax(-1))


@given(
    logits=st.lists(st.sampled_from([-torch.inf, -200.0, -80.0, -1.0, 0.0, 1.0, 90.0]), min_size=1, max_size=150),
    uniform=st.sampled_from([0.0, 2**-24, 0.25, 0.5, 1 - 2**-24]),
    top_p=st.sampled_from([1e-9, 0.5, 0.999, 1.0]),
)
def test_a_token_of_no_probability_is_never_drawn(logits: list[float], uniform: float, top_p: float) -> None:
    if max(logits) == -torch.inf:
        logits = [*logits, 0.0]
    token, logprob = drawn_of(torch.tensor([logits]), torch.tensor([uniform]), top_p=top_p)
    assert logits[int(token)] > max(logits) - 110
    assert logprob.isfinite().all()


def test_a_row_is_drawn_alike_whatever_is_drawn_beside_it() -> None:
    torch.manual_seed(0)
    logits, uniform = torch.randn(64, 1000) * 3, torch.rand(64)
    temperature, top_p = torch.rand(64).round(decimals=1) * (torch.arange(64) % 3), torch.rand(64).clamp(min=0.5)
    top_p[torch.arange(64) % 4 == 0] = 1

    def of(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        greedy, nucleus = ((mask[rows]).nonzero()[:, 0] for mask in (temperature == 0, top_p < 1))
        pair = (which if len(which) else None for which in (greedy, nucleus))
        return draw(logits[rows].clone(), temperature[rows], top_p[rows], uniform[rows], *pair)

    tokens, logprobs = of(torch.arange(64))
    for rows in (torch.tensor([5]), torch.arange(0, 64, 4), torch.arange(3, 40)):
        token, logprob = of(rows)
        assert torch.equal(token, tokens[rows])
        assert torch.equal(logprob, logprobs[rows])
