"""Each kind of reward but code and math: what it is worth, and when there is no verdict."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.posttrain.rewards.conftest import Judge, limited, task
from xgen.posttrain.rewards.jobs import length_penalty
from xgen.spec.rewards import Exact, Format, Function, LengthPenalty, RewardModel

NUMBER = Exact(kind="exact", extract=r"answer: (\w+)")


def test_exact_is_the_whole_answer_but_for_white_space_at_its_ends(judge: Judge) -> None:
    assert judge(" yes\n", Exact(kind="exact"), answer="yes").score == 1
    assert judge("Yes", Exact(kind="exact"), answer="yes").score == 0
    assert judge("7", Exact(kind="exact"), answer=7).score == 1


def test_what_is_extracted_last_is_what_is_compared(judge: Judge) -> None:
    assert judge("answer: 3. No, answer: 4", NUMBER, answer=4).score == 1
    assert judge("answer: 4. No, answer: 3", NUMBER, answer=4).score == 0
    assert judge("4", NUMBER, answer=4).score == 0


def test_format_matches_the_whole_answer_over_all_its_lines(judge: Judge) -> None:
    reward = Format(kind="format", pattern="<think>.*</think>.+")
    assert judge("<think>a\nb</think>\nc", reward).score == 1
    assert judge("so <think>a</think>c", reward).score == 0


def test_a_record_without_a_reference_is_a_failure_that_says_what_is_missing(judge: Judge) -> None:
    verdict = judge("yes", Exact(kind="exact"))
    assert verdict.score is None
    assert verdict.failures == {"exact": "error"}
    assert "'answer'" in verdict.details["exact"]


def test_rewards_are_added_by_their_weights_and_named_by_their_kinds(judge: Judge) -> None:
    long = LengthPenalty(kind="length", free=10, most=20, weight=0.5)
    one, two = (
        Format(kind="format", pattern=pattern, weight=weight) for pattern, weight in (("a.*", 2.0), ("b.*", 8.0))
    )
    verdict = judge("abc", Exact(kind="exact"), one, two, long, answer="abc", num_tokens=16)
    assert verdict.parts == {"exact": 1.0, "format": 1.0, "format#2": 0.0, "length": pytest.approx(-0.6)}
    assert verdict.score == pytest.approx(1 + 2 - 0.3)


def test_one_verifier_that_fails_leaves_no_score_and_the_other_parts(judge: Judge) -> None:
    verdict = judge("abc", Exact(kind="exact"), Format(kind="format", pattern="a.*"))
    assert (verdict.score, verdict.parts) == (None, {"exact": None, "format": 1.0})


@given(st.integers(0, 200), st.integers(1, 100), st.integers(1, 100))
def test_the_length_penalty_is_that_of_dapo(tokens: int, free: int, cache: int) -> None:
    """Equation 13: L_max is our `most`, L_cache the room in front of it."""
    most = free + cache
    if tokens <= most - cache:
        expected = 0.0
    elif tokens <= most:
        expected = ((most - cache) - tokens) / cache
    else:
        expected = -1.0
    assert length_penalty(tokens, free, most) == pytest.approx(expected)


def test_a_function_of_the_jobs_code_is_called_with_prompt_answer_and_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_rewards.py").write_text(
        "import os, socket\n"
        "def score(prompt, answer, record): return len(prompt) + len(answer) * record['factor']\n"
        "def none(prompt, answer, record): return None\n"
        "def fails(prompt, answer, record): raise KeyError('lost')\n"
        "def hangs(prompt, answer, record):\n    while True: pass\n"
        "def dies(prompt, answer, record): os._exit(0)\n"
        "def eats(prompt, answer, record): return bytearray(1 << 40)\n"
        "def env(prompt, answer, record): return len([k for k in os.environ if 'SECRET' in k])\n"
        "def net(prompt, answer, record): socket.create_connection(('127.0.0.1', record['port']), 1); return 1\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setenv("XGEN_SECRET", "1")
    names = ("score", "none", "fails", "hangs", "dies", "eats", "env", "net", "missing")
    with limited(seconds=1.0) as verifiers:
        tasks = [
            task("ab", Function(kind="function", function=f"own_rewards:{name}"), factor=3, port=1) for name in names
        ]
        verdicts = dict(zip(names, verifiers.judge(tasks), strict=True))
        stats = verifiers.stats().kinds["function"]
    assert verdicts["score"].score == len("the prompt") + 6
    assert verdicts["env"].score == 0
    failures = {name: verdict.failures["function"] for name, verdict in verdicts.items() if verdict.failures}
    assert failures == {
        "none": "error", "fails": "error", "missing": "error", "hangs": "timeout", "dies": "crashed", "eats": "memory",
        "net": "error",
    }  # fmt: skip
    assert "KeyError: 'lost'" in verdicts["fails"].details["function"]
    assert stats.failures == {"error": 4, "timeout": 1, "crashed": 1, "memory": 1}
    assert (stats.verdicts, stats.retries) == (2, 1)  # a worker that died is tried again, once


class _Server(BaseHTTPRequestHandler):
    """What the last part of the path says."""

    asked: dict[str, Any]
    tries: dict[str, int]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked[self.path] = body
        type(self).tries[self.path] = type(self).tries.get(self.path, 0) + 1
        said: object = {"score": 0.25}
        if self.path == "/v1/score":
            said = {"object": "list", "data": [{"index": 0, "object": "score", "score": 0.5}]}
        elif self.path == "/pooling":
            said = {"data": [{"index": 0, "object": "pooling", "data": [[0.1], [0.75]]}]}
        elif self.path == "/empty":
            said = {}
        elif self.path == "/nan":
            said = {"score": float("nan")}
        elif self.path == "/late":
            time.sleep(30)
        elif self.path == "/drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b" ")
                time.sleep(0.1)
        elif self.path == "/busy" and type(self).tries[self.path] == 1:
            self.send_error(503)
            return
        elif self.path == "/broken":
            self.send_error(500)
            return
        data = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    _Server.asked, _Server.tries = {}, {}
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as web:
        web.daemon_threads, web.block_on_close = True, False
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


def test_a_reward_model_is_asked_in_its_own_words_and_its_failures_are_told(server: str) -> None:
    paths = ("/v1/score", "/pooling", "/own", "/empty", "/nan", "/late", "/drip", "/busy", "/broken")
    urls = [*(server + path for path in paths), "http://127.0.0.1:9/score"]
    with limited(seconds=0.5) as verifiers:
        began = time.monotonic()
        verdicts = verifiers.judge([task("well", RewardModel(kind="model", url=url, name="judge")) for url in urls])
        seconds = time.monotonic() - began
    scores = dict(zip((*paths, "nobody"), (verdict.score for verdict in verdicts), strict=True))
    assert {path: score for path, score in scores.items() if score is not None} == {
        "/v1/score": 0.5, "/pooling": 0.75, "/own": 0.25, "/busy": 0.25,
    }  # fmt: skip
    reasons = [verdict.failures.get("model") for verdict in verdicts]
    assert reasons == [None, None, None, "error", "error", "timeout", "timeout", None, "error", "error"]
    assert _Server.asked["/v1/score"] == {"model": "judge", "text_1": "the prompt", "text_2": "well"}
    assert [message["role"] for message in _Server.asked["/pooling"]["messages"]] == ["user", "assistant"]
    assert _Server.tries["/broken"] == 2
    assert seconds < 15  # questions wait beside each other


def test_a_secret_proxy_of_the_trainer_is_not_used(judge: Judge, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert judge("x", RewardModel(kind="model", url=f"{server}/own")).score == 0.25


def test_a_key_in_the_address_of_a_reward_model_is_not_told(judge: Judge) -> None:
    verdict = judge("x", RewardModel(kind="model", url="http://127.0.0.1:9/score?key=secret"))
    assert verdict.failures == {"model": "error"}
    assert "127.0.0.1:9/score" in verdict.details["model"] and "secret" not in verdict.details["model"]
