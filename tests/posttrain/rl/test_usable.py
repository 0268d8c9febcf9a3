"""Rewards that could never say anything end a run before its first answer, and not with a model that learnt nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.posttrain.rl.conftest import rl_job
from tests.posttrain.rl.world import make_tokenizer
from xgen.data.chat.prompts import PromptSource, TokenPrompt, packed_record
from xgen.data.chat.tokenizer import ChatTokenizer
from xgen.engine import Completion
from xgen.posttrain.rl.answers import Judged
from xgen.posttrain.rl.judging import RewardJudge
from xgen.posttrain.rl.usable import check_rewards
from xgen.runs import Refused

IDS = np.array([1], dtype=np.uint32)
OWN = "tests.posttrain.rl.own_rewards"


def check(reward: dict[str, str], *records: dict[str, object]) -> None:
    prompts = tuple(TokenPrompt(n, "sums", IDS, "1+1", packed_record(one)) for n, one in enumerate(records))
    check_rewards(rl_job(rewards={"sums": reward}), {"sums": PromptSource("sums", prompts, {}, "")})


@pytest.mark.parametrize("kind", ["exact", "math", "code"])
def test_prompts_without_what_the_reward_goes_by(kind: str) -> None:
    with pytest.raises(
        Refused, match=rf"^rewards.sums: {kind} can judge none of the first 2 prompts: the record has no"
    ):
        check({"kind": kind}, {}, {"level": 3})


def test_a_prompt_without_an_answer_beside_others_is_no_mistake_of_the_spec() -> None:
    check({"kind": "exact"}, {}, {"answer": "2"})


@pytest.mark.parametrize(
    ("name", "why"),
    [("no_such_module:score", "No module named 'no_such_module'"), (f"{OWN}:missing", "has no attribute 'missing'")],
)
def test_a_function_that_is_not_there(name: str, why: str) -> None:
    with pytest.raises(Refused, match=f"^rewards.sums: {name} cannot be imported: .*{why}"):
        check({"kind": "function", "function": name}, {})


def test_why_a_verdict_failed_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tokenizer(tmp_path)
    job = rl_job(rewards={"sums": {"kind": "function", "function": f"{OWN}:broken"}})
    judge = RewardJudge(job, ChatTokenizer.load(str(tmp_path), None), 1)
    try:
        prompt = TokenPrompt(0, "sums", IDS, "1+1", packed_record({}))
        for key in "ab":
            judge.submit(key, prompt, Completion(key, (1,), (0.0,), "stop", ((0, 1),), 0.1))
        found: dict[str, Judged] = {}
        while len(found) < 2:
            found |= judge.ready(60.0)
    finally:
        judge.close()
    assert [judged.details for judged in found.values()] == [{"function": "ValueError: my bug"}] * 2
    said = capsys.readouterr().out
    assert said == "no verdict of function, error: ValueError: my bug; such answers do not train\n"


def test_a_function_whose_imports_are_more_than_a_verdict_may_have() -> None:
    with pytest.raises(Refused, match=r"cannot be imported: .*; it has verification.limits.memory, 1GB"):
        check({"kind": "function", "function": "torch:abs"}, {})


def test_a_function_that_is_there() -> None:
    check({"kind": "function", "function": f"{OWN}:one"}, {})
