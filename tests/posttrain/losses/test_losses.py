"""What TRL has no word for: who does not train, ties, and numbers that nobody should look at."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xgen.posttrain.losses import (
    Normalizer,
    Sampled,
    answer_sums,
    by_token,
    group_advantages,
    policy_loss,
    preference_loss,
)
from xgen.spec.rl import RlLoss
from xgen.spec.sft import PreferenceLoss

NAN = float("nan")
ANSWERS = torch.tensor([[-1, 0, 0, -1, 1, -1], [0, 0, 0, -1, -1, -1]])


def test_what_lies_outside_of_answers_counts_for_nothing() -> None:
    values = torch.tensor([[NAN, 1.0, 2.0, NAN, 4.0, NAN], [1.0, 1.0, 1.0, NAN, NAN, NAN]], requires_grad=True)
    sums = answer_sums(values, ANSWERS, most=2)
    assert sums.tolist() == [[3.0, 4.0], [3.0, 0.0]]
    sums.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, (ANSWERS >= 0).float())
    assert by_token(sums, ANSWERS)[0].tolist() == [0.0, 3.0, 3.0, 0.0, 4.0, 0.0]


def test_an_answer_without_a_verdict_is_no_part_of_its_group() -> None:
    found = group_advantages(torch.tensor([[1.0, 0.0, NAN, 0.5], [NAN, 2.0, NAN, NAN]]), scale=False)
    assert found[0].nan_to_num(nan=9).tolist() == [0.5, -0.5, 9, 0.0]
    assert found[1].isnan().all()  # one alone has nothing to be compared with


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=16), st.booleans())
def test_advantages_of_a_group_sum_to_zero(rewards: list[float], scale: bool) -> None:
    found = group_advantages(torch.tensor([rewards]), scale)
    assert found.isfinite().all()
    assert float(found.sum()) == pytest.approx(0.0, abs=1e-3 * max(1.0, *map(abs, rewards)))
    assert bool((found == 0).all()) or max(rewards) > min(rewards)


def test_an_answer_without_an_advantage_trains_nothing() -> None:
    logps = torch.full(ANSWERS.shape, -1.0, requires_grad=True)
    sampled = Sampled(
        ANSWERS,
        torch.tensor([[2, 1], [3, 0]]),
        torch.tensor([[NAN, 1.0], [-1.0, 0.0]]),
        old=torch.where(ANSWERS == 1, -1.0, NAN).where(ANSWERS != 0, -1.0),
        sampler=torch.full(ANSWERS.shape, NAN),
    )
    result = policy_loss(RlLoss(kind="dapo"), logps, sampled, Normalizer(tokens=4, answers=2, max_tokens=8))
    result.loss.backward()
    assert logps.grad is not None
    expected = torch.tensor([[0, 0, 0, 0, -1, 0], [1, 1, 1, 0, 0, 0]]) / 4
    assert torch.equal(logps.grad, expected)
    assert float(result.metrics.importance) == 1.0  # a sampler that does not say is not corrected for


def test_the_first_update_is_the_plain_policy_gradient_and_clips_nothing() -> None:
    logps = torch.randn(ANSWERS.shape, requires_grad=True)
    sampled = Sampled(ANSWERS, torch.tensor([[2, 1], [3, 0]]), torch.tensor([[2.0, 1.0], [-1.0, 0.0]]))
    spec = RlLoss(kind="dr_grpo", importance="none")
    result = policy_loss(spec, logps, sampled, Normalizer(tokens=6, answers=3, max_tokens=5))
    result.loss.backward()
    assert logps.grad is not None
    torch.testing.assert_close(logps.grad, -by_token(sampled.advantages, ANSWERS) / 15)
    assert float(result.metrics.clip_fraction) == 0.0
    assert float(result.metrics.ratio) == pytest.approx(1.0)


def test_a_sum_over_an_answer_is_taken_over_all_ranks_that_hold_it() -> None:
    """Context parallelism: each rank has half of the sequence."""
    logps, old, sampler = (torch.randn(ANSWERS.shape) for _ in range(3))
    lengths, advantages = torch.tensor([[2, 1], [3, 0]]), torch.tensor([[2.0, 1.0], [-1.0, 0.0]])
    spec, total = RlLoss(kind="dapo", importance="sequence"), Normalizer(6, 3, 5)
    whole = policy_loss(spec, logps, Sampled(ANSWERS, lengths, advantages, old=old, sampler=sampler), total)
    halves = [slice(0, 2), slice(2, 6)]
    gaps = [answer_sums((old - sampler)[:, half], ANSWERS[:, half], 2) for half in halves]
    parts = [
        policy_loss(
            spec, logps[:, h], Sampled(ANSWERS[:, h], lengths, advantages, old=old[:, h], sampler=sampler[:, h]), total,
            over_ranks=lambda sums, n=n: sums + gaps[1 - n],
        ).loss
        for n, h in enumerate(halves)
    ]  # fmt: skip
    assert float(parts[0] + parts[1]) == pytest.approx(float(whole.loss), rel=1e-5)


def test_a_policy_that_is_the_reference_prefers_neither() -> None:
    sums, lengths = torch.tensor([-3.0, -4.0]), torch.tensor([2, 2])
    result = preference_loss(PreferenceLoss(), sums, sums - 1, lengths, lengths, sums, sums - 1)
    assert result.accuracy.tolist() == [0.5, 0.5]
    assert result.loss.tolist() == pytest.approx([0.6931472] * 2)


def test_a_loss_by_token_does_not_see_the_length() -> None:
    """Twice as many tokens with the same mean: nothing changes, but for dpo."""
    chosen, rejected, lengths = torch.tensor([-2.0]), torch.tensor([-6.0]), torch.tensor([4])
    for kind, same in (("ipo", True), ("dpo_norm", True), ("simpo", True), ("dpo", False)):
        spec = PreferenceLoss.model_validate({"kind": kind})
        zero = torch.zeros(1)
        once = preference_loss(spec, chosen, rejected, lengths, lengths, zero, zero)
        twice = preference_loss(spec, 2 * chosen, 2 * rejected, 2 * lengths, 2 * lengths, zero, zero)
        assert torch.equal(once.loss, twice.loss) is same, kind


def test_the_sum_over_a_long_answer_is_that_of_its_tokens() -> None:
    values = torch.full((1, 131_072), -0.7, requires_grad=True)
    sums = answer_sums(values, torch.zeros(1, 131_072, dtype=torch.int32), 1)
    sums.sum().backward()
    assert sums.dtype == torch.float32
    assert abs(sums.item() + 0.7 * 131_072) < 0.01
    assert values.grad is not None and (values.grad == 1).all()
