"""Losses are those of torchtitan and transformers, at any length and in any company."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch

from tests.engine.generating import SCALING, engine_of, spec_of, weights
from tests.model.parity import hugging_face, titan, titan_logits
from xgen.engine import EngineError
from xgen.engine.cache import Cache
from xgen.engine.inprocess import InProcessEngine
from xgen.model.hf import Context
from xgen.spec import RopeScaling

SEQ_LEN = 4096  # two parts
LENGTHS = (0, 1, 2, 3, 130, 2, 700, 1, 128, 129, 2500, 5, 4096)


def text(length: int) -> list[int]:
    drawn: list[int] = torch.randint(512, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    return drawn


def of_logits(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    labels = torch.tensor(tokens)[1:, None]
    return -torch.log_softmax(logits[:-1], -1).gather(1, labels)[:, 0]


def long_engine(seq_len: int = SEQ_LEN, at_a_time: int | None = None) -> InProcessEngine:
    engine = InProcessEngine(spec_of(), seq_len, 1e4)
    engine.load(0, weights().items())
    if at_a_time:
        engine._decoder.at_a_time = at_a_time
    return engine


@pytest.mark.parametrize("scaling", [None, SCALING], ids=["plain", "yarn"])
@pytest.mark.parametrize("sizes", [{}, {"num_kv_heads": 4}, {"num_kv_heads": 1, "qk_norm": True}], ids=str)
def test_losses_are_those_of_torchtitan_and_transformers(sizes: dict[str, int], scaling: RopeScaling | None) -> None:
    spec = spec_of(**sizes)
    model = titan(spec, SEQ_LEN, 1e5, scaling)
    theirs = hugging_face(spec, dict(model.state_dict()), Context(SEQ_LEN, 1e5, scaling, "float32", eos=0))
    engine = InProcessEngine(spec, SEQ_LEN, 1e5, scaling)
    engine.load(0, model.state_dict().items())
    for length, losses in zip(LENGTHS, engine.losses(map(text, LENGTHS)), strict=True):
        assert losses.shape == (max(0, length - 1),)
        assert losses.dtype == torch.float32
        if length > 1:
            tokens = torch.tensor([text(length)])
            torch.testing.assert_close(
                losses, of_logits(titan_logits(model, tokens)[0], text(length)), rtol=0, atol=1e-4
            )
            with torch.no_grad():
                logits = theirs(tokens).logits[0]
            torch.testing.assert_close(losses, of_logits(logits, text(length)), rtol=0, atol=1e-4)


def test_a_text_has_the_same_bits_in_any_company() -> None:
    engine = long_engine()
    together = list(engine.losses(map(text, LENGTHS)))
    backwards = list(engine.losses(map(text, reversed(LENGTHS))))[::-1]
    for length, losses, other in zip(LENGTHS, together, backwards, strict=True):
        (alone,) = engine.losses([text(length)])
        assert torch.equal(losses, alone)
        assert torch.equal(other, alone)


@pytest.mark.parametrize("at_a_time", [128, 300, 1000])
def test_where_a_text_is_parted_changes_nothing(at_a_time: int) -> None:
    whole = list(long_engine().losses(map(text, LENGTHS)))
    parts = list(long_engine(at_a_time=at_a_time).losses(map(text, LENGTHS)))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_texts_are_taken_a_pass_at_a_time() -> None:
    taken: list[int] = []

    def texts() -> Iterator[list[int]]:
        for number in range(12):
            taken.append(number)
            yield text(300)

    losses = long_engine(at_a_time=1200).losses(texts())
    next(losses)
    assert taken == [0, 1, 2, 3]


def test_a_pass_holds_no_more_keys_than_tokens_are_computed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the rows of the short texts with the room of the long one."""
    sizes: list[int] = []
    take = Cache._take

    def seen(self: Cache, num_rows: int, room: int) -> None:
        sizes.append(num_rows * room)
        take(self, num_rows, room)

    monkeypatch.setattr(Cache, "_take", seen)
    list(long_engine().losses([text(length) for length in (*[20] * 40, 3000, *[100] * 40, 2049)]))
    assert max(sizes) == 3072


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ([3, 512], "text 1 has a token outside 0 to 511"),
        ([-1, 3], "text 1 has a token outside 0 to 511"),
        (list(range(258)), "text 1 has 258 tokens, and the model was opened for 256"),
    ],
)
def test_a_text_that_cannot_be_is_named(tokens: list[int], said: str) -> None:
    with pytest.raises(EngineError, match=said):
        list(engine_of().losses([text(5), tokens]))


def test_one_token_more_than_positions_can_be_predicted() -> None:
    (losses,) = engine_of().losses([text(257)])
    assert len(losses) == 256


def test_without_weights_or_with_broken_ones_nothing_is_said() -> None:
    with pytest.raises(EngineError, match="no weights were loaded"):
        InProcessEngine(spec_of(), SEQ_LEN, 1e4).losses([text(5)])
    engine = InProcessEngine(spec_of(), SEQ_LEN, 1e4)
    broken = {name: torch.full_like(tensor, torch.nan) for name, tensor in weights().items()}
    engine.load(0, broken.items())
    with pytest.raises(EngineError, match="text 0 losses that are no numbers"):
        list(engine.losses([text(5)]))


def test_in_half_precision_they_are_nearly_the_same() -> None:
    engine = InProcessEngine(spec_of(), SEQ_LEN, 1e4, dtype=torch.bfloat16)
    engine.load(0, weights().items())
    exact = long_engine()
    for length in (50, 2500):
        (found,), (expected,) = engine.losses([text(length)]), exact.losses([text(length)])
        assert (found - expected).abs().mean() < 0.05
