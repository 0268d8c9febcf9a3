"""Answers and losses of a model under evaluation: those of transformers, in any order, with no more rows than fit."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.conftest import _one_thread
from tests.engine.generating import SEQ_LEN, engine_of, spec_of, weights
from tests.model.parity import hugging_face
from xgen.engine import EngineError
from xgen.evals.model import EngineModel, Rows
from xgen.evals.protocol import Answer, Prompt
from xgen.model.hf import Context

__all__ = ["_one_thread"]


def prompt(length: int, seed: int = 0, max_tokens: int = 12, stop: tuple[int, ...] = ()) -> Prompt:
    drawn = torch.randint(512, (length,), generator=torch.Generator().manual_seed(1000 * seed + length))
    return Prompt(drawn.tolist(), max_tokens, stop)


PROMPTS = [prompt(length, seed) for seed in range(3) for length in (1, 5, 40, 200, 17)]


def ids(model: EngineModel, prompts: Sequence[Prompt]) -> dict[int, tuple[int, ...]]:
    found = list(model.generate(prompts))
    assert len({number for number, _ in found}) == len(found)
    assert all(answer.seconds > 0 for _, answer in found)
    return {number: answer.ids for number, answer in found}


def theirs(prompts: Sequence[Prompt]) -> dict[int, tuple[int, ...]]:
    """One after the other by transformers' generate."""
    model = hugging_face(spec_of(), dict(weights()), Context(SEQ_LEN, 1e4, None, "float32", eos=0))
    found = {}
    for number, one in enumerate(prompts):
        tokens = torch.tensor([one.ids])
        with torch.no_grad():
            row = model.generate(
                tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=one.max_tokens, do_sample=False,
                eos_token_id=list(one.stop) or None, pad_token_id=0,
            )[0, len(one.ids) :].tolist()  # fmt: skip
        found[number] = tuple(row[:-1] if row[-1] in one.stop else row)
    return found


@pytest.mark.parametrize("at_once", [1, 4, 0])
def test_greedy_answers_are_those_of_transformers(at_once: int) -> None:
    assert ids(EngineModel(engine_of(at_once=64), at_once), PROMPTS) == theirs(PROMPTS)


def test_an_answer_ends_before_a_stop_token_and_has_none() -> None:
    stop = tuple(range(0, 512, 5))
    prompts = [Prompt(one.ids, one.max_tokens, stop) for one in PROMPTS]
    found = ids(EngineModel(engine_of(), 0), prompts)
    assert found == theirs(prompts)
    assert any(len(answer) < 12 for answer in found.values())
    assert not set(stop) & {token for answer in found.values() for token in answer}


def test_prompts_are_taken_as_there_is_room_and_answers_given_as_they_end() -> None:
    taken: list[int] = []

    def prompts() -> Iterator[Prompt]:
        for number, one in enumerate(PROMPTS):
            taken.append(number)
            yield one

    answers = EngineModel(engine_of(), 3).generate(prompts())
    next(answers)
    assert len(taken) == 4  # three under way, and the next


def test_given_up_in_the_middle_the_model_takes_others() -> None:
    engine = engine_of()
    model = EngineModel(engine, 4)
    answers = model.generate(PROMPTS)
    next(answers)
    assert isinstance(answers, Generator)
    answers.close()
    assert engine.pending() == {}
    assert ids(model, PROMPTS[:3]) == theirs(PROMPTS[:3])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Prompt([], 5, ()), "its prompt has no token"),
        (Prompt([600], 5, ()), "a token is outside 0 to 511"),
        (Prompt([1] * 250, 10, ()), "prompt and answer may be 260 tokens, and the model sees 256"),
    ],
)
def test_a_prompt_that_cannot_be_answered_is_named(wrong: Prompt, said: str) -> None:
    with pytest.raises(EngineError, match=f"request 1: {said}"):
        list(EngineModel(engine_of(), 0).generate([PROMPTS[0], wrong]))


def test_nothing_to_answer_is_no_answer() -> None:
    assert list(EngineModel(engine_of(), 0).generate([])) == []
    assert list(EngineModel(engine_of(), 0).losses([])) == []


def test_losses_come_as_numbers_of_numpy_in_order() -> None:
    texts = [one.ids for one in PROMPTS]
    found = list(EngineModel(engine_of(), 0).losses(texts))
    assert [losses.dtype.name for losses in found] == ["float32"] * len(texts)
    assert [len(losses) for losses in found] == [len(text) - 1 for text in texts]


def test_too_large_a_prompt_waits_until_the_others_have_ended() -> None:
    rows = Rows(64, 1000)
    assert rows.admits(300, [])
    assert rows.admits(300, [300, 300])
    assert not rows.admits(300, [300, 300, 300])
    rows.computed([300, 300])
    assert rows.admits(300, [300])  # its row is there
    assert not rows.admits(300, [300, 300])  # the old cache, and a larger one
    assert not rows.admits(400, [300])
    rows.computed([])
    assert rows.admits(400, [400])
    assert rows.admits(5000, [])  # alone: the engine says what is wrong


def test_as_many_as_a_person_has_said_are_taken() -> None:
    assert Rows(2, None).admits(10**9, [10**9])
    assert not Rows(2, None).admits(1, [1, 1])


@given(st.lists(st.integers(1, 400), max_size=40), st.integers(1, 64), st.data())
def test_no_two_caches_are_larger_than_memory(lengths: list[int], at_once: int, data: st.DataObject) -> None:
    """Whatever ends when: all prompts are taken, and none is alone too large."""
    rows, most = Rows(at_once, 1000), 1000
    under_way: list[int] = []
    held = (0, 0)
    left = list(lengths)
    while left or under_way:
        while left and rows.admits(left[0], under_way):
            under_way.append(left.pop(0))
        assert under_way
        assert len(under_way) <= at_once
        wanted = max(held[0], len(under_way)), max(held[1], *under_way)
        assert wanted == held or wanted[0] * wanted[1] + held[0] * held[1] <= most
        rows.computed(under_way)
        held = wanted
        ended = data.draw(st.integers(1, len(under_way)))
        del under_way[:ended]
        if not under_way:
            rows.computed([])
            held = (0, 0)


def test_an_answer_is_what_the_protocol_says() -> None:
    ((number, answer),) = EngineModel(engine_of(), 0).generate([PROMPTS[2]])
    assert number == 0
    assert isinstance(answer, Answer)
