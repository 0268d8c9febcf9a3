"""The engine in the trainer's process: its numbers are those of torchtitan and transformers, in any company."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.generating import (
    SCALING,
    SEQ_LEN,
    answers,
    engine_of,
    essence,
    full_logprobs,
    request,
    spec_of,
    weights,
)
from tests.model.parity import hugging_face, titan
from xgen.engine import EngineError, Partial, Request, Sampling
from xgen.engine.attention import Piece
from xgen.engine.cache import Cache
from xgen.engine.inprocess import InProcessEngine
from xgen.model.hf import Context
from xgen.spec import RopeScaling

MIXED = [
    request("short", 1, 5),
    request("greedy", 30, 25, temperature=0),
    request("warm", 60, 40, temperature=1.3, top_p=0.9),
    request("nucleus", 17, 33, top_p=0.5),
    request("long", 150, 100),
    *(request(f"group-{n}", 40, 30, prompt_seed=7) for n in range(5)),
    *(request(f"single-{n}", 3 + 11 * n, 12 + 5 * n, temperature=0.8) for n in range(6)),
]


@pytest.mark.parametrize("scaling", [None, SCALING], ids=["plain", "yarn"])
@pytest.mark.parametrize("sizes", [{}, {"num_kv_heads": 4}, {"num_kv_heads": 1, "qk_norm": True}], ids=str)
def test_logprobs_are_those_of_the_trained_model(sizes: dict[str, int], scaling: RopeScaling | None) -> None:
    spec = spec_of(**sizes)
    model = titan(spec, SEQ_LEN, 1e5, scaling)
    engine = InProcessEngine(spec, SEQ_LEN, 1e5, scaling, at_once=4)
    engine.load(0, model.state_dict().items())
    found = answers(engine, MIXED)
    assert found.keys() == {wanted.id for wanted in MIXED}
    for wanted in MIXED:
        completion = found[wanted.id]
        expected = full_logprobs(model, wanted, completion.tokens)
        torch.testing.assert_close(list(completion.logprobs), expected, rtol=0, atol=1e-4)
        assert len(completion.tokens) == wanted.sampling.max_tokens
        assert completion.finish == "length"


@pytest.mark.parametrize("scaling", [None, SCALING], ids=["plain", "yarn"])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_the_likeliest_tokens_are_those_of_transformers(qk_norm: bool, scaling: RopeScaling | None) -> None:
    spec = spec_of(qk_norm=qk_norm)
    state = dict(titan(spec, SEQ_LEN, 1e5, scaling).state_dict())
    theirs = hugging_face(spec, state, Context(SEQ_LEN, 1e5, scaling, "float32", eos=0))
    engine = InProcessEngine(spec, SEQ_LEN, 1e5, scaling, at_once=4)
    engine.load(0, state.items())
    wanted = [request(name, 25, 60, temperature=0) for name in ("one", "two", "three")]
    found = answers(engine, wanted)
    prompts = torch.tensor([asked.prompt for asked in wanted])
    with torch.no_grad():
        expected = theirs.generate(
            prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=60, min_new_tokens=60, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
    assert [list(found[asked.id].tokens) for asked in wanted] == expected[:, 25:].tolist()


def test_half_precision_gives_nearly_the_same_logprobs() -> None:
    engine = InProcessEngine(spec_of(), SEQ_LEN, 1e4, at_once=4, dtype=torch.bfloat16)
    engine.load(0, weights().items())
    model = titan(spec_of(), SEQ_LEN)
    found = answers(engine, MIXED)
    for wanted in MIXED:
        expected = full_logprobs(model, wanted, found[wanted.id].tokens)
        torch.testing.assert_close(list(found[wanted.id].logprobs), expected, rtol=0, atol=0.2)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, tuple[object, ...]]:
    return {name: essence(completion) for name, completion in answers(engine_of(at_once=64), MIXED).items()}


@pytest.mark.parametrize("at_once", [1, 3, 5])
def test_an_answer_has_the_same_bits_in_any_company(undisturbed: dict[str, tuple[object, ...]], at_once: int) -> None:
    found = answers(engine_of(at_once), reversed(MIXED))
    assert {name: essence(completion) for name, completion in found.items()} == undisturbed


@pytest.mark.parametrize("num_steps", [1, 4, 30, 70])
def test_an_answer_that_goes_on_in_another_engine_has_the_same_bits(
    undisturbed: dict[str, tuple[object, ...]], num_steps: int
) -> None:
    first = engine_of(at_once=6)
    for wanted in MIXED:
        first.submit(wanted)
    found = {completion.id: completion for _ in range(num_steps) for completion in first.completed(0)}
    begun = first.pending()
    assert begun.keys() | found.keys() == undisturbed.keys()
    assert num_steps < 30 or any(len(partial.tokens) > 20 for partial in begun.values())
    second = engine_of(at_once=4)
    found |= answers(second, (replace(asked, begun=begun[asked.id]) for asked in MIXED if asked.id in begun))
    assert {name: essence(completion) for name, completion in found.items()} == undisturbed


def test_what_had_ended_when_it_was_begun_is_answered_at_once() -> None:
    stopped = replace(request("stopped", stop=(7,)), begun=Partial((3, 7), (-1.0, -2.0), ((4, 2),)))
    full = replace(request("full", max_tokens=2), begun=Partial((3, 7), (-1.0, -2.0), ((4, 1), (5, 1))))
    found = answers(engine_of(), [stopped, full])
    assert essence(found["stopped"]) == ((3, 7), (-1.0, -2.0), "stop", ((4, 2),))
    assert essence(found["full"]) == ((3, 7), (-1.0, -2.0), "length", ((4, 1), (5, 1)))


requests = st.lists(
    st.builds(
        lambda length, max_tokens, prompt_seed, seed, stop, temperature, top_p: (
            request("", length, max_tokens, prompt_seed, stop=stop, temperature=temperature, top_p=top_p),
            seed,
        ),
        st.integers(1, 90),
        st.integers(1, 40),
        st.integers(0, 2),
        st.integers(0, 2**63 - 1),
        st.sampled_from([(), (5,), tuple(range(64)), tuple(range(512))]),
        st.sampled_from([0, 0.7, 1.0]),
        st.sampled_from([0.3, 1.0]),
    ),
    max_size=14,
)


@settings(max_examples=25, deadline=None)
@given(drawn=requests, at_once=st.integers(1, 9), cancelled=st.sets(st.integers(0, 13)), patience=st.integers(0, 5))
def test_every_request_is_answered_once(
    drawn: list[tuple[Request, int]], at_once: int, cancelled: set[int], patience: int
) -> None:
    model, engine = titan(spec_of(), SEQ_LEN), engine_of(at_once)
    wanted = {str(n): replace(asked, id=str(n), seed=seed) for n, (asked, seed) in enumerate(drawn)}
    for asked in wanted.values():
        engine.submit(asked)
    found = {completion.id: completion for _ in range(patience) for completion in engine.completed(0)}
    engine.cancel([*map(str, cancelled), "nobody"])
    assert engine.pending().keys() == wanted.keys() - found.keys() - set(map(str, cancelled))
    rest = answers(engine)
    assert not rest.keys() & found.keys()
    assert (rest | found).keys() >= wanted.keys() - set(map(str, cancelled))
    assert engine.pending() == {}
    for name, completion in (rest | found).items():
        sampling = wanted[name].sampling
        stops = [token in sampling.stop for token in completion.tokens]
        assert not any(stops[:-1])
        assert completion.finish == ("stop" if stops[-1] else "length")
        assert stops[-1] or len(completion.tokens) == sampling.max_tokens
        assert completion.versions == ((1, len(completion.tokens)),)
        expected = full_logprobs(model, wanted[name], completion.tokens)
        torch.testing.assert_close(list(completion.logprobs), expected, rtol=0, atol=1e-4)


def test_a_prompt_is_computed_once_for_all_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(at_once=5)
    computed: list[int] = []
    prefill = engine._decoder.prefill

    def counting(cache: Cache, pieces: Sequence[Piece]) -> None:
        computed.extend(len(piece.tokens) for piece in pieces)
        prefill(cache, pieces)

    monkeypatch.setattr(engine._decoder, "prefill", counting)
    answers(engine, [request(f"{n}", 50, 10 + n, prompt_seed=3) for n in range(12)])
    assert computed == [49]


def test_prompts_longer_than_what_is_computed_at_once_are_computed_in_parts() -> None:
    wanted = [request("longer", 180, 5), request("short", 9, 5), request("also", 70, 5)]
    whole = answers(engine_of(), wanted)
    engine = engine_of()
    engine._decoder.at_a_time = 32
    parts = answers(engine, wanted)
    for asked in wanted:
        assert parts[asked.id].tokens == whole[asked.id].tokens
        torch.testing.assert_close(list(parts[asked.id].logprobs), list(whole[asked.id].logprobs), rtol=0, atol=1e-4)


def test_new_weights_count_from_the_next_token_on_and_answers_say_so() -> None:
    engine = engine_of(at_once=2)
    wanted = [request(name, 20, 30) for name in ("first", "second", "waiting")]
    for asked in wanted:
        engine.submit(asked)
    for _ in range(11):  # the first computes the prompts
        assert engine.completed(0) == []
    engine.load(2, weights(seed=1).items())
    assert engine.version == 2
    assert engine.pending()["first"].versions == ((1, 10),)
    for _ in range(5):
        engine.completed(0)
    engine.load(3, weights(seed=0).items())
    found = answers(engine)
    assert found["first"].versions == found["second"].versions == ((1, 10), (2, 5), (3, 15))
    assert found["waiting"].versions == ((3, 30),)
    before = answers(engine_of(), wanted)
    assert before["first"].tokens[:10] == found["first"].tokens[:10]
    assert before["first"].tokens != found["first"].tokens
    assert essence(before["waiting"])[:2] == essence(found["waiting"])[:2]


def test_prompts_of_earlier_weights_are_not_shared_with_answers_of_later_ones() -> None:
    group = [request(f"{n}", 40, 30, prompt_seed=7) for n in range(2)]
    expected = answers(engine_of(version=2, seed=1), group[1:])
    engine = engine_of(at_once=2)
    engine.submit(group[0])
    assert engine.completed(0) == engine.completed(0) == []
    engine.load(2, weights(seed=1).items())
    engine.submit(group[1])
    assert essence(answers(engine)["1"]) == essence(expected["1"])


def test_weights_that_compute_nothing_are_an_error_and_better_ones_help() -> None:
    engine = engine_of(at_once=3)
    wanted = [request(f"{n}", 10, 40) for n in range(5)]
    for asked in wanted:
        engine.submit(asked)
    for _ in range(6):
        engine.completed(0)
    engine.load(2, ((name, torch.full_like(tensor, torch.nan)) for name, tensor in weights().items()))
    for _ in range(2):
        with pytest.raises(EngineError, match="version 2 give logits that are no numbers") as caught:
            engine.completed()
        assert not caught.value.retryable
    engine.load(3, weights().items())
    found = answers(engine)
    assert found["0"].versions == ((1, 5), (3, 35))
    undisturbed = answers(engine_of(), wanted)
    assert {name: one.tokens for name, one in found.items()} == {name: one.tokens for name, one in undisturbed.items()}


def test_a_load_that_ends_early_leaves_an_engine_that_waits_for_a_whole_one() -> None:
    engine = engine_of()
    engine.submit(request("one"))

    def broken() -> Iterator[tuple[str, torch.Tensor]]:
        yield from list(weights(seed=1).items())[:5]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        engine.load(2, broken())
    with pytest.raises(EngineError, match="version 2 were not loaded to the end"):
        engine.completed()
    engine.load(2, weights(seed=1).items())
    assert answers(engine)["one"].versions == ((2, 20),)


def test_weights_of_another_model_are_refused() -> None:
    engine = engine_of()
    state = dict(weights())
    with pytest.raises(EngineError, match=r"norm.weight is \[3\], and the model small has \[64\] there"):
        engine.load(2, (state | {"norm.weight": torch.zeros(3)}).items())
    with pytest.raises(EngineError, match=r"extra.weight is .*none of this name"):
        engine.load(2, (state | {"extra.weight": torch.zeros(3)}).items())
    del state["layers.1.attention.wo.weight"]
    with pytest.raises(EngineError, match=r"1 weights of the model small were not given, layers.1.attention.wo"):
        engine.load(2, state.items())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Request("a", (), 0, Sampling(5)), "its prompt has no token"),
        (Request("a", (1, 512), 0, Sampling(5)), "a token is outside 0 to 511"),
        (Request("a", (1,), 0, Sampling(256)), "may be 257 tokens, and the model sees 256"),
        (Request("a", (1,), 0, Sampling(0)), "max_tokens is 0"),
        (Request("a", (1,), 0, Sampling(5, temperature=-1)), "temperature is -1"),
        (Request("a", (1,), 0, Sampling(5, temperature=float("nan"))), "temperature is nan"),
        (Request("a", (1,), 0, Sampling(5, top_p=0)), "top_p is 0"),
        (Request("a", (1,), -1, Sampling(5)), "seed is -1"),
        (Request("a", (1,), 0, Sampling(5), Partial((1, 2), (0.0,), ((1, 2),))), "unequal numbers"),
        (Request("a", (1,), 0, Sampling(1), Partial((1, 2), (0.0, 0.0), ((1, 2),))), "2 tokens have begun"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused(asked: Request, said: str) -> None:
    engine = engine_of()
    with pytest.raises(EngineError, match=f"request a: .*{said}") as caught:
        engine.submit(asked)
    assert not caught.value.retryable
    assert engine.pending() == {}


def test_one_id_is_one_request() -> None:
    engine = engine_of()
    engine.submit(request("one"))
    with pytest.raises(EngineError, match="request one is pending already"):
        engine.submit(request("one"))
    assert len(answers(engine)) == 1
    assert len(answers(engine, [request("one")])) == 1


def test_an_id_is_free_again_when_its_answer_is_given_out_or_dropped() -> None:
    engine = engine_of()
    for _ in range(2):
        assert answers(engine, [request("a", max_tokens=2)]).keys() == {"a"}
        engine.submit(request("b"))
        engine.cancel(["b"])


def test_as_many_requests_as_a_large_step_has_are_taken_at_once() -> None:
    engine, wanted = engine_of(), request("r")
    began = time.process_time()
    for number in range(12_000):
        engine.submit(replace(wanted, id=str(number)))
    assert time.process_time() - began < 2


def test_an_engine_without_weights_and_a_closed_one_say_so() -> None:
    engine = InProcessEngine(spec_of(), SEQ_LEN, 1e4)
    assert engine.version == -1
    assert engine.completed() == []
    engine.submit(request("one"))
    with pytest.raises(EngineError, match="no weights were loaded"):
        engine.completed()
    engine.load(0, weights().items())
    engine.close()
    engine.close()
    for use in (lambda: engine.submit(request("two")), engine.completed, lambda: engine.load(1, ())):
        with pytest.raises(EngineError, match="the engine is closed"):
            use()
    assert engine.pending() == {}


def test_time_runs_out_and_the_answers_are_not_lost() -> None:
    engine = engine_of()
    engine.submit(request("one", max_tokens=200))
    began = time.monotonic()
    assert engine.completed(0.01) == []
    assert time.monotonic() - began < 1
    assert answers(engine)["one"].seconds > 0.01


def test_memory_is_given_back_when_all_is_answered() -> None:
    engine = engine_of(at_once=3)
    answers(engine, MIXED[:6])
    assert engine._cache.num_rows == engine._cache.room == 0


def test_threads_submit_load_and_ask_while_another_generates() -> None:
    """With one set of weights under many versions, so that every answer is known."""
    wanted = [request(f"{n}", 5 + n, 30, top_p=0.9) for n in range(24)]
    expected = answers(engine_of(), wanted)
    engine = engine_of(at_once=5, version=0)
    found: dict[str, tuple[int, ...]] = {}
    failed: list[BaseException] = []

    def guarded(work: Iterator[None]) -> threading.Thread:
        def run() -> None:
            try:
                list(work)
            except BaseException as error:  # noqa: BLE001 - it is shown by the assertion
                failed.append(error)

        return threading.Thread(target=run, daemon=True)

    def generating() -> Iterator[None]:
        while len(found) < len(wanted):
            ended = engine.completed(0.05)
            found.update({completion.id: completion.tokens for completion in ended})
            assert all(sum(count for _, count in one.versions) == 30 for one in ended)
            time.sleep(0 if ended else 0.001)
            yield

    def submitting() -> Iterator[None]:
        for asked in wanted:
            engine.submit(asked)
            yield

    def loading() -> Iterator[None]:
        for version in range(1, 12):
            engine.load(version, weights().items())
            assert len(engine.pending()) <= len(wanted)
            yield

    threads = [guarded(work) for work in (generating(), submitting(), loading())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert failed == []
    assert found == {name: completion.tokens for name, completion in expected.items()}
    assert engine.version == 11
