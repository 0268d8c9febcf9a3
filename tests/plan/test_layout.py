"""Layouts that cannot be are refused with sizes that can."""

from __future__ import annotations

import pytest

from tests.plan.conftest import problems, problems_at
from xgen.spec import Profile

SHAPES = [
    # As ux.md has it.
    (
        ["stages.3.parallelism.cp=12"],
        "stages[3].parallelism.cp: 12 does not divide 256k into blocks of 128, two a rank; write 8 or 16",
    ),
    (
        ["stages.3.parallelism={tp: 16}"],
        "stages[3].parallelism.tp: 16 does not divide a node's 8 GPUs, and its ranks talk at every layer; write 8",
    ),
    (  # it divides the 96 ranks, the heads and the length
        ["stages.3.parallelism={tp: 4}", "stages.3.resources={nodes: 16, gpus_per_node: 6}"],
        "stages[3].parallelism.tp: 4 does not divide a node's 6 GPUs, and its ranks talk at every layer; write 2",
    ),
    (
        ["stages.3.parallelism={tp: 3}", "stages.3.resources={nodes: 16, gpus_per_node: 6}",
         "model={name: m, dim: 1024, num_layers: 9, num_heads: 16, num_kv_heads: 8, ffn_dim: 512, vocab_size: 512}"],
        "stages[3].parallelism.tp: 3 does not divide the model's 16 heads and 8 KV heads; write 2",
    ),
    (
        ["stages.3.parallelism={tp: 2}", "stages.3.seq_len=4095", "stages.3.global_batch=524160"],
        "stages[3].parallelism.tp: 2 does not divide seq_len 4095; write 1",
    ),
    (
        [
            "stages.3.parallelism={tp: 3, cp: 2}", "stages.3.resources={nodes: 16, gpus_per_node: 6}",
            "model={name: m, dim: 1536, num_layers: 9, num_heads: 12, num_kv_heads: 6, ffn_dim: 512, vocab_size: 512}",
        ],
        "stages[3].parallelism.tp: 3 does not divide seq_len 262144 in 4 pieces, for cp: 2; write 2",
    ),
    (["stages.2.parallelism={fsdp: 2, pp: 64}"],
     "stages[2].parallelism.pp: 64 is more than the model's 38 layers; write 32"),
    (["stages.0.parallelism={replicate: 3}", "stages.1.parallelism={}"],
     "stages[0].parallelism.replicate: 3 does not divide 128, the ranks of 16 nodes x 8 GPUs; write 2 or 4"),
    (["stages.3.parallelism={replicate: 16, cp: 16}"],
     "stages[3].parallelism.replicate: 16 with cp 16 does not divide 128, the ranks of 16 nodes x 8 GPUs; write 8"),
    (["stages.3.parallelism={replicate: 3, pp: 5}"],
     "stages[3].parallelism: replicate 3 x pp 5 does not divide 128, the ranks of 16 nodes x 8 GPUs; "
     "write smaller ones, or other resources"),
    (["stages.2.parallelism={fsdp: 64, pp: 4}"],
     "stages[2].parallelism: fsdp 64 x replicate 1 x pp 4 is not 128, the ranks of 16 nodes x 8 GPUs; write fsdp: 32"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "said"), SHAPES, ids=[said.split(";")[0] for _, said in SHAPES])
def test_what_cannot_be_split_is_refused_with_what_can(overrides: list[str], said: str, profile: Profile) -> None:
    assert problems(profile, *overrides, memory=None) == [said]


@pytest.mark.parametrize(
    ("stage", "parallelism"),
    [(stage, f"{{replicate: {replicate}, cp: {cp}, tp: {tp}, pp: {pp}, fsdp: {fsdp}}}")
     for stage in (0, 3) for replicate in (1, 3, 16) for cp in (1, 12) for tp in (1, 3, 16) for pp in (1, 5)
     for fsdp in (0, 7)],
)  # fmt: skip
def test_doing_what_is_said_ends_in_a_layout_that_is_accepted(stage: int, parallelism: str, profile: Profile) -> None:
    overrides = [f"stages.{stage}.parallelism={parallelism}"]
    for _ in range(8):
        found = problems_at(stage, problems(profile, *overrides, memory=None))
        if not found:
            return
        overrides += [done(stage, one) for one in found]
    pytest.fail(f"still refused: {found} after {overrides}")


def done(stage: int, said: str) -> str:
    """The override that a problem asks for, the last where it leaves a choice."""
    key, _, message = said.partition(": ")
    fix = message.rpartition("write ")[2]
    if fix.startswith("smaller ones"):
        return f"stages.{stage}.parallelism={{}}"
    if key.endswith(".parallelism"):
        return f"{key}.fsdp={fix.removeprefix('fsdp: ')}"
    if key.endswith("global_batch"):
        return f"{key}={fix.split()[-2]}"  # a multiple of N tokens
    return f"{key}={fix.split()[-1]}" if fix[-1].isdigit() else f"{key}=1"
