"""What makes a stage fit is proposed whole, and is accepted."""

from __future__ import annotations

import re

import pytest

from tests.plan.conftest import problems, problems_at
from xgen.spec import Profile

AC = "stages.0.activation_checkpointing"
LONG = (
    "stages.0={{name: a, tokens: 7T, mixture: long, seq_len: 256k, global_batch: 32M, lr: {{peak: 1e-3}}, "
    "attention: {}, parallelism: {{fsdp: 64, tp: 2}}}}"
)
LEVERS: list[tuple[list[str], str, str]] = [
    (["stages.0.micro_batch=4", f"{AC}=none", "stages.1.micro_batch=1", "stages.1.activation_checkpointing=selective"],
     "80GB", "micro_batch: 1"),
    (["stages.0.micro_batch=4", "stages.1.micro_batch=1"], "40GB", "micro_batch: 1"),
    (["stages.0.micro_batch=8", f"{AC}=none"], "30GB", "activation_checkpointing: full and micro_batch: 1"),
    ([], "20GB", "parallelism: {fsdp: 128} and activation_checkpointing: full"),
    (["stages.0.parallelism={fsdp: 16, tp: 2, replicate: 4}", "stages.0.micro_batch=2"], "8GB",
     "parallelism: {fsdp: 64, tp: 2} and activation_checkpointing: full and micro_batch: 1"),
    ([LONG.format("flex")], "40GB", "parallelism: {fsdp: 16, tp: 2, cp: 4} and activation_checkpointing: full"),
    ([LONG.format("varlen"), "stages.2.attention=flex"], "40GB", "more nodes and a larger fsdp"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "memory", "fix"), LEVERS)
def test_the_lever_is_what_makes_it_fit(overrides: list[str], memory: str, fix: str, profile: Profile) -> None:
    (said,) = problems_at(0, problems(profile, *overrides, memory=memory))
    assert said.partition("write ")[2] == fix
    settings = re.findall(r"(\w+): (\{.*?\}|\w+)", fix)
    if settings:
        applied = [f"stages.0.{key}={value}" for key, value in settings]
        assert problems_at(0, problems(profile, *overrides, *applied, memory=memory)) == []
