"""The trainer of preference pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torchtitan.distributed import utils as dist_utils

from xgen.data.chat.prepare import chat_store, open_store
from xgen.posttrain.preference.frozen import Frozen
from xgen.posttrain.preference.objective import MEASURED, weigh_pairs
from xgen.posttrain.preference.pair_trainer import PairTrainer, packed_pairs
from xgen.posttrain.preference.reference import read_reference
from xgen.posttrain.preference.validation import PairValidation
from xgen.runs.origin import read_beginning
from xgen.train.init import load_initial
from xgen.train.microbatch import Given, MicroBatch
from xgen.train.trainer import TrainResult
from xgen.train.validation import Validation, validation_of

_NAMES = dict(zip(MEASURED, ("accuracy", "reward_margin", "reward_chosen", "reward_rejected"), strict=True))


class PreferenceTrainer(PairTrainer):
    """Trains, with the reference of every pair beside it in the micro-batch."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._measured = torch.zeros(len(MEASURED), device=self.device)
        self._stored: torch.Tensor | None = None  # [pairs of the store, 2], on the CPU
        self._frozen: Frozen | None = None

    def make_validation(self) -> Validation | None:
        return validation_of(self, PairValidation)

    def fit(self) -> TrainResult:
        """Raises Refused where there is no reference."""
        if self.job.stores_reference:
            run = self.context.run
            store = open_store(self.job, chat_store(self.job, run.path))
            self._stored = torch.from_numpy(read_reference(run, store, read_beginning(run)))
        elif self.job.loss.needs_reference:
            load_initial(self, self.model_parts)
            self._frozen = Frozen(self.model_parts[0])
        return super().fit()

    def micro_batches(self, data: Iterator[Given]) -> list[list[Given]]:
        groups = super().micro_batches(data)
        self.add_reference([given for group in groups for given in group])
        return groups

    def add_reference(self, batches: list[Given]) -> None:
        """`reference` [rows, most, 2] to the tensors of each, where the loss needs one."""
        if self._stored is not None:
            for inputs, _ in batches:
                inputs["reference"] = self._stored[inputs["pairs"].clamp(min=0)]
        elif self._frozen is not None:
            with self._frozen.instead():
                for inputs, labels in batches:
                    inputs["reference"] = self.answer_logprobs((inputs, labels))

    def normaliser(self, groups: list[list[Given]]) -> torch.Tensor:
        """Pairs of the step, over all ranks."""
        self._measured.zero_()
        num = sum(((inputs["pairs"] >= 0).sum() for group in groups for inputs, _ in group), torch.tensor(0))
        whole: torch.Tensor = dist_utils.dist_sum_tensor(
            num.to(self.device), self.parallel_dims.get_optional_mesh("batch")
        )
        return whole

    def objective(self, hidden: torch.Tensor, batch: MicroBatch, whole: torch.Tensor) -> torch.Tensor:
        logprobs = self.loss_fn.logprobs(hidden, batch.labels)
        weighed = weigh_pairs(self.job.loss, logprobs, packed_pairs(batch), whole, self.over_context)
        self._measured += weighed.measured * self.speaks
        return self.loss_fn.with_gradient(weighed.loss * self.speaks, hidden, batch.labels, weighed.weights)

    def extra_metrics(self) -> dict[str, float]:
        over_ranks = dist_utils.dist_sum_tensor(self._measured, self.parallel_dims.get_optional_mesh("loss"))
        values = zip(MEASURED, over_ranks.tolist(), strict=True)
        return {f"train_preference_{_NAMES[name]}": value for name, value in values}
