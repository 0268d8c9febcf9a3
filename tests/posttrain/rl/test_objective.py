"""The loss of a step, whatever of it is computed."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch

from tests.posttrain.rl.test_rows import SEQ_LEN, piece
from xgen.posttrain.losses import Normalizer, Sampled
from xgen.posttrain.rl.objective import MEASURED, Weighed, weigh_answers
from xgen.posttrain.rl.rows import Piece, in_updates, make_rows
from xgen.spec.rl import RlLoss

KINDS = get_args(RlLoss.model_fields["kind"].annotation)
PIECES = [
    Piece(one.prompt, one.tokens, one.logprobs / np.float32(10), advantage)
    for number, advantage in enumerate([0.5, 0.0, -1.0, 0.0, 2.0, 0.0])
    for one in [piece(2 + number % 3, 3 + number, number)]
]


def weighed(kind: str, every: bool) -> tuple[Weighed, dict[tuple[int, int], float], float]:
    """The loss, what each token of each piece weighs, and the share that was computed."""
    [part] = in_updates(PIECES, SEQ_LEN, 1, 100, every)
    rows = make_rows(part.rows, SEQ_LEN)
    tensors: dict[str, Any] = {
        name: torch.from_numpy(getattr(rows, name))
        for name in ("answers", "lengths", "advantages", "sampler", "labels")
    }
    # By the token alone, as a policy would have it: the same wherever a piece lies.
    logprobs = torch.where(tensors["answers"] >= 0, -1 - 0.1 * torch.sin(tensors["labels"].float()), 0.0)
    sampled = Sampled(tensors["answers"], tensors["lengths"], tensors["advantages"], sampler=tensors["sampler"])
    total = Normalizer(part.num_tokens, part.num_answers, 16)
    spec = RlLoss.model_validate({"kind": kind})
    found = weigh_answers(spec, logprobs, -logprobs, sampled, total, lambda sums: sums)
    learnt = np.argwhere(rows.answers >= 0)
    by_token = {
        (int(rows.labels[row, at]), int(rows.positions[row, at])): float(found.weights[row, at]) for row, at in learnt
    }
    return found, by_token, float(rows.lengths.sum()) / part.num_tokens


@pytest.mark.parametrize("kind", KINDS)
def test_answers_with_no_advantage_need_not_be_computed(kind: str) -> None:
    whole, weights, all_of_it = weighed(kind, every=True)
    some, fewer, share = weighed(kind, every=False)
    assert (all_of_it, len(fewer)) == (1.0, round(share * len(weights)))
    assert float(some.loss) == pytest.approx(float(whole.loss), rel=1e-5)
    assert {key: weights[key] for key in fewer} == pytest.approx(fewer, rel=1e-5)
    assert all(weight == 0 for key, weight in weights.items() if key not in fewer)
    ratio = MEASURED.index("rl_ratio")
    assert float(some.measured[ratio]) / share == pytest.approx(float(whole.measured[ratio]), rel=1e-5)
