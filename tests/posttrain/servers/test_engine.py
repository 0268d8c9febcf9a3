"""The engine against transformers' own server: the tokens are exact, and whatever happens each answer comes once."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.posttrain.servers.conftest import Bench, Serve, collect, job_of, request, wait_until, weights_of
from tests.posttrain.servers.proxy import Proxy
from xgen.engine.protocol import EngineError, Partial
from xgen.posttrain.servers.registry import Server, Watch
from xgen.posttrain.servers.weights import current, weights_dir

LONG: Any = {"max_tokens": 100, "prompt": (3, 1, 4)}


def greedy(folder: Path, prompt: tuple[int, ...], number: int) -> tuple[int, ...]:
    """What transformers itself says, in this process."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([prompt])
    with torch.no_grad():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=number, do_sample=False, pad_token_id=0
        )
    return tuple(out[0, len(prompt) :].tolist())


def test_answers_are_the_tokens_that_the_weights_give(bench: Bench, serve: Serve) -> None:
    engine = bench.engine()
    engine.load(3, weights_of(bench.job, 1).items())
    bench.tell(0, serve.url)
    name = current(bench.run)
    assert name is not None
    expected = greedy(weights_dir(bench.run) / name, (5, 17, 95, 0), 16)
    stop = expected[9]
    engine.submit(request("whole"))
    engine.submit(request("stopped", stop=(stop,)))
    found = collect(engine, 2)
    assert found["whole"].tokens == expected
    assert (found["whole"].finish, found["whole"].versions) == ("length", ((3, 16),))
    first = expected.index(stop) + 1
    assert (found["stopped"].tokens, found["stopped"].finish) == (expected[:first], "stop")
    assert [math.isnan(value) for value in found["stopped"].logprobs] == [True] * first
    assert engine.completed() == []
    assert engine.pending() == {}


def test_sampling_draws_and_what_has_begun_goes_on(bench: Bench, serve: Serve) -> None:
    engine = bench.engine()
    engine.load(0, weights_of(bench.job, 1).items())
    bench.tell(0, serve.url)
    begun = Partial((7, 8, 9), (-1.0, -2.0, -3.0), ((2, 3),))
    for number in range(4):
        engine.submit(request(f"drawn-{number}", temperature=1.0))
    engine.submit(request("begun", begun=begun, max_tokens=8))
    engine.submit(request("over", begun=begun, max_tokens=3))
    engine.submit(request("stopped", begun=begun, stop=(9,), max_tokens=3))
    found = collect(engine, 7)
    assert len({found[f"drawn-{number}"].tokens for number in range(4)}) == 4
    assert found["begun"].tokens[:3] == begun.tokens
    assert found["begun"].logprobs[:3] == begun.logprobs
    assert found["begun"].versions == ((2, 3), (0, 5))
    assert (found["over"].tokens, found["over"].versions) == (begun.tokens, begun.versions)
    name = current(bench.run)
    assert name
    assert found["begun"].tokens[3:] == greedy(weights_dir(bench.run) / name, (5, 17, 95, 0, 7, 8, 9), 5)


def test_new_weights_are_asked_for_only_where_they_are_loaded_and_the_last_two_are_kept(
    bench: Bench, serve: Serve
) -> None:
    engine = bench.engine()
    names = []
    for version in range(3):
        engine.load(version, weights_of(bench.job, version).items())
        names.append(current(bench.run))
    assert sorted(path.name for path in weights_dir(bench.run).glob("v*")) == names[1:]
    bench.tell(0, serve.url, names[1])
    engine.submit(request("one"))
    assert engine.completed(timeout=1.5) == []  # it has the weights of another version
    bench.tell(0, serve.url)
    found = collect(engine, 1)
    assert found["one"].versions == ((2, 16),)
    assert names[2]
    assert found["one"].tokens == greedy(weights_dir(bench.run) / names[2], (5, 17, 95, 0), 16)


def test_the_run_directory_is_looked_at_seldom_while_nothing_is_about_to_change(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, alive = [0], Watch.alive

    def counted(self: Watch) -> list[Server]:
        looks[0] += 1
        return alive(self)

    monkeypatch.setattr(Watch, "alive", counted)
    engine = bench.engine()
    engine.load(1, weights_of(bench.job, 1).items())
    bench.tell(0, "http://127.0.0.1:9")
    wait_until(lambda: engine._fleet.is_settled(1), "a server with the weights")
    before = looks[0]
    time.sleep(2)
    assert looks[0] - before <= 1
    engine.load(2, weights_of(bench.job, 2).items())
    wait_until(lambda: looks[0] - before >= 3, "who has the new ones is looked for", 3)


def test_an_answer_under_way_goes_on_with_the_new_weights_and_says_so(bench: Bench, serve: Serve) -> None:
    with Proxy(serve.url, pause=0.03) as slow:
        engine = bench.engine()
        engine.load(1, weights_of(bench.job, 1).items())
        bench.tell(0, slow.url)
        engine.submit(request("long", **LONG))
        wait_until(lambda: len(engine.pending()["long"].tokens) > 5, "some tokens")
        engine.load(2, weights_of(bench.job, 2).items())
        assert engine.version == 2
        some = engine.pending()["long"]
        bench.tell(0, slow.url)
        slow.pause = 0.0
        done = collect(engine, 1)["long"]
        assert [version for version, _ in done.versions] == [1, 2]
        assert sum(count for _, count in done.versions) == len(done.tokens) == 100
        assert done.tokens[: len(some.tokens)] == some.tokens
        name, before = current(bench.run), done.versions[0][1]
        assert name
        rest = greedy(weights_dir(bench.run) / name, (3, 1, 4, *done.tokens[:before]), 100 - before)
        assert done.tokens[before:] == rest


@pytest.mark.parametrize("fault", ["cut", "hang", "error", "garbage", "refuse", "busy", "early"])
def test_a_server_that_fails_costs_no_answer_and_no_token(bench: Bench, serve: Serve, fault: str) -> None:
    bench.job = job_of(timeout="3s" if fault == "hang" else "60s")
    with Proxy(serve.url, fault=fault, after=4) as bad, Proxy(serve.url) as good:
        engine = bench.engine()
        engine.load(1, weights_of(bench.job, 1).items())
        bench.tell(0, bad.url)
        bench.tell(1, good.url)
        for number in range(6):
            engine.submit(request(f"answer-{number}", prompt=(3, number), max_tokens=24))
        found = collect(engine, 6)
        assert bad.requests > 0
    name = current(bench.run)
    assert name
    for number in range(6):
        done = found[f"answer-{number}"]
        assert done.tokens == greedy(weights_dir(bench.run) / name, (3, number), 24)
        assert (done.versions, done.finish) == (((1, 24),), "length")


@pytest.mark.slow
def test_answers_survive_that_the_only_server_is_killed_and_comes_back(bench: Bench) -> None:
    bench.job = job_of(timeout="90s")
    server = Serve()
    server.start()
    try:
        with Proxy(server.url, pause=0.02) as slow:
            engine = bench.engine()
            engine.load(1, weights_of(bench.job, 1).items())
            bench.tell(0, slow.url)
            for number in range(3):
                engine.submit(request(f"answer-{number}", prompt=(9, number), max_tokens=60))
            wait_until(lambda: any(len(one.tokens) > 5 for one in engine.pending().values()), "some tokens")
            server.kill()
            begun = engine.pending()
            server.start()
            slow.pause = 0.0
            found = collect(engine, 3, timeout=200)
        name = current(bench.run)
        assert name
        for number in range(3):
            done = found[f"answer-{number}"]
            assert done.tokens[: len(begun[done.id].tokens)] == begun[done.id].tokens
            assert done.tokens == greedy(weights_dir(bench.run) / name, (9, number), 60)
    finally:
        server.kill()


def test_the_server_with_the_least_to_do_is_asked_and_none_for_more_than_it_works_on(
    bench: Bench, serve: Serve
) -> None:
    with Proxy(serve.url, pause=0.01) as one, Proxy(serve.url, pause=0.01) as other:
        engine = bench.engine()
        engine.load(1, weights_of(bench.job, 1).items())
        for number, proxy in enumerate((one, other)):
            bench.tell(number, proxy.url)
        for number in range(12):
            engine.submit(request(f"answer-{number}", prompt=(3, number)))
        assert len(collect(engine, 12)) == 12
        assert (one.most, other.most) == (2, 2)
        assert abs(one.requests - other.requests) <= 4


def test_a_request_that_every_server_refuses_is_told_and_stands_in_the_way_of_nothing_else(
    bench: Bench, serve: Serve
) -> None:
    engine = bench.engine()
    engine.load(1, weights_of(bench.job, 1).items())
    with Proxy(serve.url, fault="reject") as bad:
        bench.tell(0, bad.url)
        engine.submit(request("one"))
        with pytest.raises(EngineError, match=r"request one: http.* refuses it \(400\): .*no good") as told:
            collect(engine, 1)
        assert not told.value.retryable
        with pytest.raises(EngineError, match="request one"):
            engine.submit(request("two"))
        engine.cancel(["one", "never there"])
        bad.fault = None
        engine.submit(request("two"))
        assert set(collect(engine, 1)) == {"two"}


def test_what_is_cancelled_never_comes(bench: Bench, serve: Serve) -> None:
    with Proxy(serve.url, pause=0.03) as slow:
        engine = bench.engine()
        engine.load(1, weights_of(bench.job, 1).items())
        bench.tell(0, slow.url)
        for name in ("one", "two", "three"):
            engine.submit(request(name, **LONG))
        wait_until(lambda: engine.pending()["one"].tokens, "a token")
        with pytest.raises(EngineError, match="request one is pending already"):
            engine.submit(request("one"))
        engine.cancel(["one", "two"])
        assert set(engine.pending()) == {"three"}
        slow.pause = 0.0
        assert set(collect(engine, 1)) == {"three"}
        assert engine.completed(timeout=0) == []
        engine.close()
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            engine.submit(request("four"))


def test_ranks_that_write_no_weights_follow_the_one_that_does(bench: Bench, serve: Serve) -> None:
    writer, reader = bench.engine(), bench.engine(writer=False)
    gathered = []

    def gather() -> Any:
        for name, tensor in weights_of(bench.job, 1).items():
            gathered.append(name)
            yield name, tensor

    reader.load(1, gather())
    assert len(gathered) == len(weights_of(bench.job, 1))
    assert current(bench.run) is None
    writer.load(1, weights_of(bench.job, 1).items())
    bench.tell(0, serve.url)
    reader.submit(request("of the reader"))
    writer.submit(request("of the writer"))
    assert collect(reader, 1)["of the reader"].tokens == collect(writer, 1)["of the writer"].tokens


def test_weights_come_back_bit_for_bit(bench: Bench) -> None:
    from xgen.model.hf import import_hf

    state = weights_of(bench.job, 1)
    bench.engine().load(1, reversed(list(state.items())))
    name = current(bench.run)
    assert name
    folder = weights_dir(bench.run) / name
    model, found = import_hf(folder)
    assert model.num_parameters == bench.job.model.num_parameters
    assert all(torch.equal(found[key], state[key]) for key in state)
    assert json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]["95"] == 95


def test_a_disk_that_is_full_leaves_the_weights_that_were_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = bench.engine()
    engine.load(1, weights_of(bench.job, 1).items())
    name = current(bench.run)

    def broken() -> Any:
        yield from list(weights_of(bench.job, 2).items())[:3]
        raise OSError(28, "No space left on device")

    with pytest.raises(EngineError, match="No space left on device; make room there") as told:
        engine.load(2, broken())
    assert told.value.retryable
    assert current(bench.run) == name
    assert [path.name for path in weights_dir(bench.run).iterdir() if path.is_dir()] == [name]


def test_what_a_killed_trainer_left_half_written_is_cleared(bench: Bench) -> None:
    folder = weights_dir(bench.run)
    (folder / ".v7-0011.tmp").mkdir(parents=True)
    (folder / ".v7-0011.tmp/model.safetensors").write_bytes(b"half")
    (folder / ".current.77.tmp").write_text("v7")
    (folder / "v6-0011").mkdir()  # whole, and never pointed to
    bench.engine().load(7, weights_of(bench.job, 1).items())
    assert [path.name for path in folder.iterdir() if path.is_dir()] == [current(bench.run)]
