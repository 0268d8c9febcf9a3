"""What packed pairs weigh, however they lie in rows, micro-batches and parts of sequences."""

from __future__ import annotations

import pytest
import torch

from xgen.posttrain.losses import preference_loss
from xgen.posttrain.preference.objective import MEASURED, PackedPairs, sums_and_lengths, weigh_pairs
from xgen.spec.sft import PreferenceLoss

SPEC = PreferenceLoss(beta=0.7, nll=0.2)
LENGTHS = [[(3, 5), (2, 2)], [(6, 1)], []]  # of both answers of the pairs of each row
SEQ_LEN = 16


def packed() -> tuple[PackedPairs, torch.Tensor]:
    torch.manual_seed(0)
    answers, pairs = torch.full((len(LENGTHS), SEQ_LEN), -1), torch.full((len(LENGTHS), 2), -1)
    for row, lengths in enumerate(LENGTHS):
        at = 1
        for number, length in enumerate(sum(lengths, ())):
            answers[row, at : at + length] = number
            at += length + 1
        pairs[row, : len(lengths)] = torch.arange(len(lengths)) + 10 * row
    reference = torch.randn(len(LENGTHS), 2, 2)
    return PackedPairs(answers, pairs, reference), torch.randn(len(LENGTHS), SEQ_LEN)


def alone(sums: torch.Tensor) -> torch.Tensor:
    return sums


def part(whole: PackedPairs, rows: slice, columns: slice = slice(None)) -> PackedPairs:
    assert whole.reference is not None
    return PackedPairs(whole.answers[rows, columns], whole.pairs[rows], whole.reference[rows])


def test_the_weights_are_the_gradient_of_the_mean_loss_of_the_pairs() -> None:
    rows, logprobs = packed()
    logprobs.requires_grad_()
    losses = []
    for row, lengths in enumerate(LENGTHS):
        for number, both in enumerate(lengths):
            sums = [logprobs[row][rows.answers[row] == 2 * number + k].sum()[None] for k in (0, 1)]
            assert rows.reference is not None
            reference = rows.reference[row, number].unbind()
            losses.append(preference_loss(SPEC, *sums, *torch.tensor(both)[:, None], *reference).loss)
    loss = torch.cat(losses).mean()
    loss.backward()
    found = weigh_pairs(SPEC, logprobs.detach(), rows, torch.tensor(3), alone)
    assert float(found.loss) == pytest.approx(float(loss.detach()), rel=1e-6)
    assert logprobs.grad is not None
    torch.testing.assert_close(found.weights, logprobs.grad)


def test_parts_add_up_over_micro_batches() -> None:
    rows, logprobs = packed()
    whole = weigh_pairs(SPEC, logprobs, rows, torch.tensor(3), alone)
    parts = [
        weigh_pairs(SPEC, logprobs[i : i + 1], part(rows, slice(i, i + 1)), torch.tensor(3), alone) for i in range(3)
    ]
    torch.testing.assert_close(sum(p.loss for p in parts), whole.loss)
    torch.testing.assert_close(sum(p.measured for p in parts), whole.measured)
    assert float(parts[2].loss) == 0.0  # a row without a pair
    torch.testing.assert_close(torch.cat([p.weights for p in parts]), whole.weights)
    margin, chosen, rejected = (
        whole.measured[MEASURED.index(n)] for n in ("margin", "chosen_reward", "rejected_reward")
    )
    torch.testing.assert_close(margin, chosen - rejected)


def test_a_sequence_may_be_split_over_ranks() -> None:
    rows, logprobs = packed()
    whole = weigh_pairs(SPEC, logprobs, rows, torch.tensor(3), alone)
    halves = [slice(0, 6), slice(6, None)]
    sums = [sums_and_lengths(logprobs[:, h], part(rows, slice(None), h), alone) for h in halves]
    for number, half in enumerate(halves):
        found = weigh_pairs(
            SPEC, logprobs[:, half], part(rows, slice(None), half), torch.tensor(3),
            lambda own, other=sums[1 - number]: own + other,
        )  # fmt: skip
        torch.testing.assert_close(found.loss, whole.loss)
        torch.testing.assert_close(found.weights, whole.weights[:, half])
