"""Loss and gradients of every kind equal TRL's on the same batch, in fp32; only we pack it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.posttrain.losses import oracle
from tests.posttrain.losses.conftest import SEQ_LEN, SPEC, Twins
from tests.posttrain.losses.packed import Conversation, Rows, hf_gradients, logprobs, pack
from xgen.posttrain.losses import (
    Normalizer,
    Sampled,
    answer_sums,
    group_advantages,
    policy_loss,
    preference_loss,
)
from xgen.spec.rl import RlLoss
from xgen.spec.sft import PreferenceLoss

pytestmark = pytest.mark.filterwarnings("ignore")


def ids(generator: torch.Generator, length: int) -> list[int]:
    return torch.randint(3, oracle.VOCAB, (length,), generator=generator).tolist()


def assert_same(loss: torch.Tensor, theirs: torch.Tensor, twins: Twins) -> None:
    """Of both losses, and of the gradients that they have left in the models."""
    assert float(loss) == pytest.approx(float(theirs), abs=1e-5, rel=1e-5)
    ours, expected = hf_gradients(twins.ours, SPEC), oracle.gradients(twins.theirs)
    assert ours.keys() == expected.keys()
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-3  # or equal zeros would pass
    for name, gradient in expected.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


class Pairs:
    """Four preference pairs in three rows."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.examples = [
            {
                name: ids(generator, n)
                for name, n in zip(("prompt_ids", "chosen_ids", "rejected_ids"), sizes, strict=True)
            }
            for sizes in ((4, 5, 9), (7, 1, 6), (3, 12, 2), (5, 6, 6))
        ]
        pairs = [
            [Conversation(e["prompt_ids"], e["chosen_ids"]), Conversation(e["prompt_ids"], e["rejected_ids"])]
            for e in self.examples
        ]
        self.rows = pack([pairs[0] + pairs[1], pairs[2], pairs[3]], SEQ_LEN)
        self.lengths = torch.tensor([[len(e["chosen_ids"]), len(e["rejected_ids"])] for e in self.examples])

    def sums(self, model: Any) -> tuple[torch.Tensor, torch.Tensor]:
        most = int(self.rows.answers.max()) + 1
        sums = self.rows.by_conversation(answer_sums(logprobs(model, self.rows), self.rows.answers, most))
        return sums[0::2], sums[1::2]

    def losses(self, spec: PreferenceLoss, twins: Twins) -> torch.Tensor:
        """Of each pair."""
        chosen, rejected = self.sums(twins.ours)
        with torch.no_grad():
            reference = self.sums(twins.our_reference) if spec.needs_reference else (None, None)
        return preference_loss(spec, chosen, rejected, *self.lengths.T, *reference).loss


PREFERENCES = {
    "dpo": ({"kind": "dpo", "beta": 0.3}, {"loss_type": ["sigmoid"]}),
    "ipo": ({"kind": "ipo", "beta": 0.3}, {"loss_type": ["ipo"]}),
    "dpo_norm": ({"kind": "dpo_norm", "beta": 3.0}, {"loss_type": ["sigmoid_norm"]}),
}
# TRL defines these over a batch: sorted over pairs, a mean over the tokens of all pairs. Pair by pair they are ours.
ONE_BY_ONE = {
    "smoothed": ({"beta": 0.3, "label_smoothing": 0.2}, {"loss_type": ["aot_unpaired"], "label_smoothing": 0.2}),
    "with nll": ({"beta": 0.3, "nll": 0.7}, {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]}),
}


@pytest.mark.parametrize(("spec", "settings"), PREFERENCES.values(), ids=PREFERENCES)
def test_a_preference_loss_is_that_of_trl(
    spec: dict[str, Any], settings: dict[str, Any], twins: Twins, tmp_path: Path
) -> None:
    pairs = Pairs()
    trainer = oracle.dpo(twins.theirs, twins.their_reference, tmp_path, beta=spec["beta"], **settings)
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(pairs.examples))
    theirs.backward()
    loss = pairs.losses(PreferenceLoss.model_validate(spec), twins).mean()
    loss.backward()
    assert_same(loss, theirs, twins)


@pytest.mark.parametrize(("spec", "settings"), ONE_BY_ONE.values(), ids=ONE_BY_ONE)
def test_a_preference_loss_by_pair_is_that_of_trl_for_each_pair(
    spec: dict[str, Any], settings: dict[str, Any], twins: Twins, tmp_path: Path
) -> None:
    pairs = Pairs()
    trainer = oracle.dpo(twins.theirs, twins.their_reference, tmp_path, beta=spec["beta"], **settings)
    batches = [trainer.data_collator([example]) for example in pairs.examples]
    theirs = torch.stack([trainer.compute_loss(trainer.model, batch) for batch in batches]).mean()
    theirs.backward()
    loss = pairs.losses(PreferenceLoss.model_validate(spec), twins).mean()
    loss.backward()
    assert_same(loss, theirs, twins)


def test_simpo_is_that_of_trl(twins: Twins, tmp_path: Path) -> None:
    pairs = Pairs()
    trainer = oracle.cpo(twins.theirs, tmp_path, loss_type="simpo", cpo_alpha=0.0, beta=2.0, simpo_gamma=0.7)
    batch = trainer.data_collator(
        [
            {
                f"{side}_{key}": values
                for side in ("chosen", "rejected")
                for key, values in {
                    "input_ids": e["prompt_ids"] + e[f"{side}_ids"],
                    "attention_mask": [1] * len(e["prompt_ids"] + e[f"{side}_ids"]),
                    "labels": [-100] * len(e["prompt_ids"]) + e[f"{side}_ids"],
                }.items()
            }
            for e in pairs.examples
        ]
    )
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()
    loss = pairs.losses(PreferenceLoss(kind="simpo", beta=2.0, margin=0.7), twins).mean()
    loss.backward()
    assert_same(loss, theirs, twins)


def test_the_loss_of_sft_is_that_of_trl(twins: Twins, tmp_path: Path) -> None:
    pairs = Pairs()
    trainer = oracle.sft(twins.theirs, tmp_path)
    both = [(e["prompt_ids"], e[f"{side}_ids"]) for e in pairs.examples for side in ("chosen", "rejected")]
    batch = trainer.data_collator(
        [{"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer} for prompt, answer in both]
    )
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()
    loss = -logprobs(twins.ours, pairs.rows).sum() / (pairs.rows.answers >= 0).sum()
    loss.backward()
    assert_same(loss, theirs, twins)


def test_log_probabilities_are_those_of_transformers(twins: Twins) -> None:
    pairs = Pairs()
    with torch.no_grad():
        chosen, rejected = pairs.sums(twins.ours)
        for side, sums in (("chosen", chosen), ("rejected", rejected)):
            for example, ours in zip(pairs.examples, sums, strict=True):
                tokens = torch.tensor([example["prompt_ids"] + example[f"{side}_ids"]])
                whole = twins.theirs(tokens).logits.log_softmax(-1)[0, :-1].gather(1, tokens[0, 1:, None])[:, 0]
                assert float(ours) == pytest.approx(float(whole[-len(example[f"{side}_ids"]) :].sum()), abs=1e-4)


class Rollout:
    """Two prompts with four answers each, in three rows; the sampler is somewhat off."""

    group, max_tokens = 4, 16

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        prompts = [ids(generator, n) for n in (5, 3) for _ in range(self.group)]
        prompts = [prompts[i - i % self.group] for i in range(len(prompts))]
        self.conversations = [
            Conversation(prompt, ids(generator, n))
            for prompt, n in zip(prompts, (3, 9, 1, 14, 6, 6, 2, 11), strict=True)
        ]
        self.rewards = [1.0, 0.0, 0.25, 0.0, 1.0, None, 0.0, 0.5]
        self.rows = pack([self.conversations[:3], self.conversations[3:6], self.conversations[6:]], SEQ_LEN)
        self.noise = 0.4 * torch.randn(len(prompts), self.max_tokens, generator=generator)

    def seen_by_sampler(self, old: torch.Tensor) -> torch.Tensor:
        """Padded log-probabilities [answers, max_tokens] from those of the trainer in rows."""
        padded = torch.zeros(len(self.conversations), self.max_tokens)
        for i, (row, number) in enumerate(self.rows.place):
            values = old[row, self.rows.answers[row] == number]
            padded[i, : len(values)] = values
        return padded + self.noise

    def for_trl(self, sampler: torch.Tensor) -> dict[str, Any]:
        return {
            "prompt_ids": [c.prompt for c in self.conversations],
            "completion_ids": [c.answer for c in self.conversations],
            "logprobs": [row[: len(c.answer)].tolist() for row, c in zip(sampler, self.conversations, strict=True)],
        }

    def lengths(self) -> torch.Tensor:
        return self.rows.by_answer([len(c.answer) for c in self.conversations])


POLICIES = {
    "grpo": ({"kind": "grpo"}, {}),
    "dr_grpo": ({"kind": "dr_grpo"}, {"scale_rewards": "none"}),
    "dapo": ({"kind": "dapo"}, {}),
    "dapo with kl": ({"kind": "dapo", "kl": 0.3}, {"beta": 0.3}),
    "grpo with kl": ({"kind": "grpo", "kl": 0.3}, {"beta": 0.3}),
    "grpo corrected by token": (
        {"kind": "grpo", "importance": "token", "importance_cap": 1.3},
        {"vllm_importance_sampling_mode": "token_truncate", "vllm_importance_sampling_clip_max": 1.3},
    ),
    "dapo corrected by answer": (
        {"kind": "dapo", "importance": "sequence", "importance_cap": 1.3, "kl": 0.1},
        {"vllm_importance_sampling_mode": "sequence_truncate", "vllm_importance_sampling_clip_max": 1.3, "beta": 0.1},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("own", "settings"), POLICIES.values(), ids=POLICIES)
def test_a_policy_loss_is_that_of_trl(
    own: dict[str, Any], settings: dict[str, Any], twins: Twins, tmp_path: Path
) -> None:
    spec = RlLoss.model_validate({"importance": "none"} | own)
    rollout = Rollout()
    rows, most = rollout.rows, int(rollout.rows.answers.max()) + 1
    with torch.no_grad():
        old, reference = logprobs(twins.ours, rows), logprobs(twins.our_reference, rows)
    sampler = rollout.seen_by_sampler(old)
    twins.their_reference.save_pretrained(tmp_path / "reference")
    trainer = oracle.grpo(
        twins.theirs, tmp_path, rollout.for_trl(sampler), rollout.rewards, num_generations=rollout.group,
        loss_type=spec.kind, epsilon=spec.clip_low, epsilon_high=spec.clip_high,
        max_completion_length=rollout.max_tokens, **settings,
    )  # fmt: skip
    batch = trainer._generate_and_score_completions([{"prompt": "t5"}] * len(rollout.rewards))
    twins.change(seed=2, std=0.01)  # an update later, so that ratios differ from 1 and some are clipped
    theirs = trainer._compute_loss(trainer.model, batch)
    theirs.backward()

    verdicts = torch.tensor([torch.nan if r is None else r for r in rollout.rewards]).view(-1, rollout.group)
    advantages = group_advantages(verdicts, spec.scales).flatten()
    # TRL counts an answer without a verdict among those that train, with an advantage of 0.
    sampled = Sampled(
        answers=rows.answers,
        lengths=rollout.lengths(),
        advantages=rows.by_answer(advantages.nan_to_num(nan=0.0)),
        old=old,
        sampler=rows.by_token(sampler),
        reference=reference if spec.kl else None,
    )
    num_tokens = sum(len(c.answer) for c in rollout.conversations)
    total = Normalizer(num_tokens, len(rollout.conversations), rollout.max_tokens)
    result = policy_loss(spec, logprobs(twins.ours, rows), sampled, total)
    result.loss.backward()
    assert_same(result.loss, theirs, twins)
    logged = trainer._metrics["train"]
    assert float(result.metrics.clip_fraction) == pytest.approx(logged["clip_ratio/region_mean"][-1], abs=1e-6)
    assert 0 < float(result.metrics.clip_fraction) < 0.9
    if spec.kl:
        assert float(result.metrics.kl) == pytest.approx(logged["kl"][-1], rel=1e-4)
    if spec.importance == "token":
        told = logged["sampling/importance_sampling_ratio/mean"][-1]
        assert float(result.metrics.importance) == pytest.approx(told, rel=1e-4)
        assert float(result.metrics.importance_max) == pytest.approx(1.3)
    assert most == 3


def test_rows_can_be_taken_one_by_one(twins: Twins) -> None:
    """The normaliser is that of the step: parts of a loss and of its metrics add up."""
    rollout = Rollout()
    rows: Rows = rollout.rows
    spec = RlLoss(kind="grpo", importance="none", kl=0.1)
    with torch.no_grad():
        logps, reference = logprobs(twins.ours, rows), logprobs(twins.our_reference, rows)
    advantages = rows.by_answer([0.3, -1.0, torch.nan, 0.2, 0.9, torch.nan, -0.4, 0.0])
    total = Normalizer(sum((9, 3, 14, 6, 2, 11)), 6, rollout.max_tokens)

    def part(some: slice) -> Any:
        sampled = Sampled(
            rows.answers[some], rollout.lengths()[some], advantages[some], old=logps[some] - 0.1,
            reference=reference[some],
        )  # fmt: skip
        return policy_loss(spec, logps[some], sampled, total)

    whole, parts = part(slice(None)), [part(slice(i, i + 1)) for i in range(3)]
    assert float(whole.loss) == pytest.approx(sum(float(p.loss) for p in parts), rel=1e-5)
    assert float(whole.metrics.kl) == pytest.approx(sum(float(p.metrics.kl) for p in parts), rel=1e-5)
    assert float(whole.metrics.ratio) == pytest.approx(torch.tensor(0.1).exp().item(), rel=1e-5)
