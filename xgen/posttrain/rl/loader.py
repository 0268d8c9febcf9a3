"""Where a run of online RL stands among its prompts. The trainer makes the batches: this is what checkpoints keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torchtitan.components.dataloader import BaseDataLoader

from xgen.data import MODULUS
from xgen.data.chat.prompts import read_prompts
from xgen.posttrain.rl.allotment import Allotment, Round
from xgen.posttrain.rl.answers import Group, digest
from xgen.spec import Rl
from xgen.train.loader import StepLoader
from xgen.train.microbatch import Given


class PromptLoader(StepLoader):
    """`next_sample` is the number of the first prompt that no step has been given."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        job: Any = None  # an Rl

    def __init__(self, config: Config, *, dp_world_size: int, dp_rank: int, **_: Any) -> None:
        """Raises StoreError."""
        job: Rl = config.job
        self._job = job
        super().__init__(job.places[0])
        self.per_step = job.rollout.prompts
        self.prompts = read_prompts(job)
        self.fingerprint = self.prompts.fingerprint
        self._num_shares, self._share = dp_world_size, dp_rank
        self._first = 0  # prompt of the step before
        self.num_tokens = 0  # that were trained on, prompts and answers, over all ranks
        self.failures: Counter[str] = Counter()  # verdicts that there are not, by VERIFIER/REASON

    @property
    def next_sample(self) -> int:
        return self.allotment.next_prompt

    @next_sample.setter
    def next_sample(self, number: int) -> None:
        """What had been given to steps to come is given up."""
        rollout = self._job.rollout
        self.allotment = Allotment(rollout.prompts, rollout.staleness, self._job.train.steps, number)

    @property
    def first_sample(self) -> int:
        return self._first

    def take(self, step: int, groups: tuple[Group, ...], num_tokens: int) -> None:
        """All ranks have the answers of a step, and train on them."""
        rounds = self.allotment.done(step)
        self._first = rounds[0][0]
        self.num_tokens += num_tokens
        for group in groups:
            for answer in group.answers:
                self.failures.update(f"{kind}/{reason}" for kind, reason in answer.judged.failures.items())
        own = digest(group for group in groups if group.number % self._num_shares == self._share)
        self._digest = (self._digest + own) % MODULUS

    def __iter__(self) -> Iterator[Given]:
        return iter(())

    def taken(self) -> dict[str, int]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "rounds": tuple((step, tuple(rounds)) for step, rounds in self.allotment.rounds.items()),
            "num_tokens": self.num_tokens,
            "failures": tuple(self.failures.items()),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        rounds: tuple[tuple[int, tuple[Round, ...]], ...] = state_dict["rounds"]
        self.allotment.rounds = {step: list(own) for step, own in rounds}
        self.num_tokens, self.failures = state_dict["num_tokens"], Counter(dict(state_dict["failures"]))
