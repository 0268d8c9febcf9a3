"""The parts of the engine that need no server: answers, which server is asked, who is alive, what is posted."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.posttrain.servers.conftest import request
from xgen.engine.protocol import Partial
from xgen.posttrain.servers.answer import Answer
from xgen.posttrain.servers.drivers import BadAnswerError, Piece, Transformers, Vllm, read_line
from xgen.posttrain.servers.fleet import Fleet
from xgen.posttrain.servers.registry import STALE, Server, Watch, beat, deregister, register, servers_dir
from xgen.posttrain.servers.weights import as_words, current, from_words, point_to, version_of, weights_dir
from xgen.runs import RunDir

TOKENS = st.lists(st.integers(0, 12), max_size=40)


@given(tokens=TOKENS, cuts=st.lists(st.integers(1, 5)), begun=st.integers(0, 5), limit=st.integers(1, 30))
def test_however_an_answer_comes_in_pieces_it_is_the_same(
    tokens: list[int], cuts: list[int], begun: int, limit: int
) -> None:
    before = tuple(tokens[:begun])
    partial = Partial(before, tuple(map(float, before)), ((4, len(before)),) if before else ())
    answer = Answer.of(request("one", begun=partial, stop=(0, 1), max_tokens=limit))
    left, version = tokens[begun:], 5
    while left and not answer.finish:
        size = cuts.pop() if cuts else 3
        answer.extend(Piece(tuple(left[:size]), tuple(map(float, left[:size]))), version)
        left, version = left[size:], version + len(cuts) % 2
    end = next((at + 1 for at, token in enumerate(tokens[:limit]) if token in (0, 1)), None)
    assert answer.tokens == tokens[: end or limit]
    assert answer.logprobs == list(map(float, answer.tokens))
    assert answer.finish == ("stop" if end else "length" if len(tokens) >= limit else None)
    assert sum(count for _, count in answer.versions) == len(answer.tokens)
    versions = [version for version, _ in answer.versions]
    assert versions == sorted(set(versions))


@given(TOKENS)
def test_words_are_tokens(tokens: list[int]) -> None:
    assert from_words(as_words(tuple(tokens))) == tokens


def server(shard: int, weights: str = "v1-aa", started: float = 1.0) -> Server:
    return Server(shard=shard, url=f"http://n{shard}:1", weights=weights, started=started)


def test_the_least_loaded_is_chosen_one_that_failed_rests_and_one_that_started_anew_does_not() -> None:
    now = [0.0]
    fleet = Fleet(2, lambda: now[0])
    fleet.update([server(0), server(1), server(2, "v0-aa")], "v1-aa")
    first = fleet.choose(None)
    assert first and first.server.shard == 0
    first.load = 1
    second = fleet.choose(None)
    assert second and second.server.shard == 1
    assert fleet.choose(second.server) is first
    second.failed()
    assert fleet.choose(first.server) is first  # there is no other
    now[0] = 0.6
    assert fleet.choose(None) is second
    second.failed()
    now[0] = 1.2
    assert fleet.choose(None) is first
    fleet.update([server(0), server(1, started=2.0)], "v1-aa")
    again = fleet.choose(None)
    assert again and again.server.started == 2.0
    first.load = again.load = 2
    assert fleet.choose(None) is None
    fleet.update([server(0)], None)
    assert fleet.ready == []


def test_a_server_whose_heart_stops_is_dead_by_the_readers_own_clock(tmp_path: Path) -> None:
    run, now = RunDir(tmp_path), [0.0]
    watch = Watch(run, lambda: now[0])
    assert watch.alive() == []
    register(run, server(0))
    register(run, server(1))
    for shard in (0, 1):  # their clocks are years off
        os.utime(servers_dir(run) / f"{shard}.json", (5, 5))
    assert [one.shard for one in watch.alive()] == [0, 1]
    now[0] = STALE / 2
    beat(run, 1)
    assert [one.shard for one in watch.alive()] == [0, 1]
    now[0] = STALE + 1
    assert [one.shard for one in watch.alive()] == [1]
    deregister(run, 1)
    deregister(run, 1)
    beat(run, 1)
    assert watch.alive() == []
    (servers_dir(run) / "2.json").write_text('{"shard": 2, "ur')
    (servers_dir(run) / ".3.json.77.tmp").write_text("{}")
    assert watch.alive() == []


def test_only_a_name_of_weights_counts(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert current(run) is None
    weights_dir(run).mkdir()
    for text in ("", "latest\n", "v1\n", "../v1-aa\n"):
        (weights_dir(run) / "current").write_text(text)
        assert current(run) is None
    point_to(run, "v12-00ff")
    assert (current(run), version_of("v12-00ff"), version_of(None)) == ("v12-00ff", 12, None)


def test_what_vllm_is_asked_and_what_it_says() -> None:
    wanted = request("one", prompt=(1, 2), stop=(7,), temperature=0.8, max_tokens=10)
    body = Vllm().body(wanted, (3, 4), Path("/w/v1-aa"))
    assert (body["prompt"], body["max_tokens"], body["stop_token_ids"]) == ([1, 2, 3, 4], 8, [7])
    assert body["return_token_ids"] is body["ignore_eos"] is body["stream"] is True
    assert body["seed"] != wanted.seed
    assert Vllm().body(wanted, (), Path("/w"))["seed"] == wanted.seed
    line = json.dumps(
        {"choices": [{"index": 0, "text": "a", "token_ids": [5, 7], "logprobs": {"token_logprobs": [-0.5, -1]}}]}
    )
    assert read_line(Vllm(), f"data: {line}") == Piece((5, 7), (-0.5, -1.0))
    assert read_line(Vllm(), 'data: {"choices": [], "usage": {}}') is None
    assert read_line(Vllm(), 'data: {"choices": [{"text": "", "finish_reason": "abort"}]}') == Piece((), ())


def test_what_transformers_is_asked_and_what_it_says() -> None:
    body = Transformers().body(request("one", prompt=(1, 2), stop=(7,), max_tokens=10), (3,), Path("/w/v1-aa"))
    assert (body["model"], body["prompt"]) == ("/w/v1-aa", "1 2 3")
    config = json.loads(body["generation_config"])
    assert config == {"max_new_tokens": 9, "eos_token_id": [7], "pad_token_id": 0, "do_sample": False}
    piece = read_line(Transformers(), 'data: {"choices": [{"text": " 5 17"}]}')
    assert piece and piece.tokens == (5, 17)
    assert [math.isnan(value) for value in piece.logprobs] == [True, True]


@pytest.mark.parametrize(
    ("driver", "line"),
    [
        (Transformers, 'data: {"error": "out of memory"}'),
        (Transformers, 'data: {"choices": [{"text": "seven"}]}'),
        (Transformers, 'data: {"choices": [{}]}'),
        (Transformers, "data: [1]"),
        (Transformers, 'data: {"choices": 3}'),
        (Vllm, 'data: {"choices": [{"token_ids": [1, 2], "logprobs": {"token_logprobs": [-1]}}]}'),
        (Vllm, 'data: {"choices": [{"token_ids": [1]}]}'),
        (Vllm, 'data: {"choices": ["x"]}'),
        (Vllm, "data: {"),
    ],
)
def test_what_is_no_answer_is_a_failure_of_the_server(driver: type[Vllm], line: str) -> None:
    with pytest.raises(BadAnswerError):
        read_line(driver(), line)


@pytest.mark.parametrize("line", ["", ": ping", "event: x", "data: [DONE]", 'data: {"usage": {}}'])
def test_lines_that_bring_nothing(line: str) -> None:
    assert read_line(Vllm(), line) is None
