"""Rewards that could never say anything end a run before its first answer, and not with a model that learnt nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.posttrain.rl.conftest import rl_job
from xgen.data.chat.prompts import PromptSource, TokenPrompt, packed_record
from xgen.posttrain.rl.usable import check_rewards
from xgen.runs import Refused

IDS = np.array([1], dtype=np.uint32)
ROOT = "tests.posttrain.rl.test_usable"


def own_reward(prompt: str, answer: str, record: object) -> float:
    return 1.0


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
    [("no_such_module:score", "No module named 'no_such_module'"), (f"{ROOT}:missing", "has no attribute 'missing'")],
)
def test_a_function_that_is_not_there(name: str, why: str) -> None:
    with pytest.raises(Refused, match=f"^rewards.sums: {name} cannot be imported: .*{why}"):
        check({"kind": "function", "function": name}, {})


def test_a_function_that_is_there() -> None:
    check({"kind": "function", "function": f"{ROOT}:own_reward"}, {})
