"""A loss of whole answers in two passes: the gradients are those of autograd through whole logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.model.parity import SMALL, titan
from tests.posttrain.losses.packed import Conversation, logprobs, pack
from xgen.data.samples import IGNORE
from xgen.posttrain.losses import answer_sums, by_token
from xgen.posttrain.two_pass import TokenLogprobs, TwoPassLoss
from xgen.spec import ModelSpec
from xgen.train.learnt import LearntLoss

CHUNKS = 4


def ids(first: int, length: int) -> list[int]:
    return [(first * 37 + 11 * i) % 500 + 3 for i in range(length)]


ROWS = pack(
    [
        [Conversation(ids(1, 5), ids(2, 7)), Conversation(ids(1, 5), ids(3, 4))],
        [Conversation(ids(4, 20), ids(5, 1)), Conversation(ids(4, 20), ids(6, 3))],
    ],
    seq_len=64,
)


@pytest.fixture
def model() -> Any:
    torch.set_num_threads(1)
    return titan(ModelSpec.model_validate(SMALL), seq_len=64)


def build(config: Any, model: Any) -> Any:
    loss = config.build(compile_config=None)
    loss.set_lm_head(model.lm_head)
    model._skip_lm_head = True
    return loss


def hidden_of(model: Any) -> torch.Tensor:
    hidden: torch.Tensor = model(ROWS.tokens, ROWS.positions, model.get_attention_masks(ROWS.positions))
    return hidden


def of_sums(sums: torch.Tensor) -> torch.Tensor:
    """Any function of the answers' sums that is none of a single one."""
    return (sums[:, 0] * sums[:, 1].exp().clamp(min=0.1) + sums[:, 1] ** 2).sum()


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    return found


def test_the_gradients_are_those_of_whole_logits(model: Any) -> None:
    whole = of_sums(answer_sums(logprobs(model, ROWS), ROWS.answers, 2))
    whole.backward()
    expected = gradients(model)

    loss = build(TwoPassLoss.Config(num_chunks=CHUNKS), model)
    hidden = hidden_of(model)
    sums = answer_sums(loss.logprobs(hidden, ROWS.labels), ROWS.answers, 2).requires_grad_()
    value = of_sums(sums)
    (weights,) = torch.autograd.grad(value, sums)
    found = loss.with_gradient(value, hidden, ROWS.labels, by_token(weights, ROWS.answers))
    found.backward()
    assert float(found.detach()) == pytest.approx(float(whole.detach()), rel=1e-5)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-5)


def test_the_temperature_divides_the_logits_and_entropies_are_known(model: Any) -> None:
    loss = build(TwoPassLoss.Config(num_chunks=CHUNKS, loss_fn=TokenLogprobs.Config(temperature=0.5)), model)
    hidden = hidden_of(model)
    logprobs_, entropies = loss.logprobs_and_entropies(hidden, ROWS.labels)
    expected = (model.lm_head(hidden) / 0.5).log_softmax(-1)
    learnt = ROWS.labels != IGNORE
    of_labels = expected.gather(2, ROWS.labels.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(logprobs_, torch.where(learnt, of_labels, 0), atol=1e-5, rtol=1e-5)
    entropy = -(expected.exp() * expected).sum(-1)
    torch.testing.assert_close(entropies, torch.where(learnt, entropy, 0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("labels", [ROWS.labels, torch.full_like(ROWS.labels, IGNORE)], ids=["some", "none"])
def test_where_nothing_is_learnt_nothing_is_computed_and_nothing_is_missed(model: Any, labels: torch.Tensor) -> None:
    logits = model(ROWS.tokens, ROWS.positions, model.get_attention_masks(ROWS.positions))
    whole = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / 7
    whole.backward()
    expected = gradients(model)
    loss = build(LearntLoss.Config(num_chunks=CHUNKS), model)
    seen: list[int] = []
    model.lm_head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    found, _ = loss(hidden_of(model), labels, torch.tensor(7))
    found.backward()
    assert float(found.detach()) == pytest.approx(float(whole.detach()), rel=1e-6)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-5)
    num = int((labels != IGNORE).sum())
    assert sum(seen) == max(CHUNKS, -(-num // CHUNKS) * CHUNKS)
