"""The trainer of preference pairs: torchtitan's, with losses of whole answers and a reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.distributed as dist
from torchtitan.components.loss import ChunkedLossWrapper
from torchtitan.distributed import utils as dist_utils

from xgen.posttrain.preference.frozen import Frozen
from xgen.posttrain.preference.objective import MEASURED, PackedPairs, sums_and_lengths, weigh_pairs
from xgen.posttrain.two_pass import TwoPassLoss
from xgen.spec import Preference, Trained
from xgen.train.microbatch import Given, MicroBatch, prepare
from xgen.train.trainer import JobTrainer

_NAMES = dict(zip(MEASURED, ("accuracy", "reward_margin", "reward_chosen", "reward_rejected"), strict=True))


class PairTrainer(JobTrainer):
    """What knows packed pairs: it can tell the log-probabilities of their answers."""

    loss_fn: TwoPassLoss
    job: Preference

    @classmethod
    def adapt(cls, config: JobTrainer.Config, job: Trained) -> JobTrainer.Config:
        config = super().adapt(config, job)
        chunks = cast(ChunkedLossWrapper.Config, config.loss).num_chunks
        config.loss = TwoPassLoss.Config(num_chunks=chunks)
        return config

    @torch.no_grad()
    def answer_logprobs(self, given: Given) -> torch.Tensor:
        """[rows, most, 2]: of both answers of each pair, by the weights that the model has; 0 where there is none."""
        batch = prepare(self, *given)
        with self.train_context():
            hidden = self.model_parts[0](batch.tokens, **batch.model_inputs)
            logprobs = self.loss_fn.logprobs(hidden, batch.labels)
        sums, _ = sums_and_lengths(logprobs, packed_pairs(batch), self.over_context)
        pairs: torch.Tensor = sums.unflatten(1, (-1, 2))
        return pairs

    def over_context(self, sums: torch.Tensor) -> torch.Tensor:
        """Summed up over the ranks that have the other parts of the same sequences."""
        if (mesh := self.parallel_dims.get_optional_mesh("cp")) is not None:
            dist.all_reduce(sums, group=mesh.get_group())
        return sums


class PreferenceTrainer(PairTrainer):
    """Trains, with the reference of each pair beside it in the micro-batch."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._measured = torch.zeros(len(MEASURED), device=self.device)
        self._frozen: Frozen | None = None

    def micro_batches(self, data: Iterator[Given]) -> list[list[Given]]:
        return self.with_reference(super().micro_batches(data))

    def with_reference(self, groups: list[list[Given]]) -> list[list[Given]]:
        """The same, with `reference` [rows, most, 2] among their tensors."""
        if self._frozen is None:
            return groups
        with self._frozen.instead():
            for group in groups:
                for inputs, labels in group:
                    inputs["reference"] = self.answer_logprobs((inputs, labels))
        return groups

    def normaliser(self, groups: list[list[Given]]) -> torch.Tensor:
        """Pairs of the step, over all ranks."""
        num = sum(((inputs["pairs"] >= 0).sum() for group in groups for inputs, _ in group), torch.tensor(0))
        self._measured.zero_()
        mesh = self.parallel_dims.get_optional_mesh("batch")
        whole: torch.Tensor = dist_utils.dist_sum_tensor(num.to(self.device), mesh)
        return whole

    def objective(self, hidden: torch.Tensor, batch: MicroBatch, whole: torch.Tensor) -> torch.Tensor:
        logprobs = self.loss_fn.logprobs(hidden, batch.labels)
        weighed = weigh_pairs(self.job.loss, logprobs, packed_pairs(batch), whole, self.over_context)
        # All ranks of a context-parallel group know the whole loss: one of them says it.
        mesh = self.parallel_dims.get_optional_mesh("cp")
        says = float(mesh is None or mesh.get_local_rank() == 0)
        self._measured += weighed.measured * says
        return self.loss_fn.with_gradient(weighed.loss * says, hidden, batch.labels, weighed.weights)

    def extra_metrics(self) -> dict[str, float]:
        mesh = self.parallel_dims.get_optional_mesh("loss")
        over_ranks = dist_utils.dist_sum_tensor(self._measured, mesh)
        return {
            f"train_preference_{_NAMES[name]}": value for name, value in zip(MEASURED, over_ranks.tolist(), strict=True)
        }


def packed_pairs(batch: MicroBatch) -> PackedPairs:
    return PackedPairs(batch.extras["answers"], batch.extras["pairs"], batch.extras.get("reference"))
