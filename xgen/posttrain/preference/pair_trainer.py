"""What every trainer of packed pairs has: it can tell the log-probabilities of their answers."""

from __future__ import annotations

from typing import cast

import torch
from torchtitan.components.loss import ChunkedLossWrapper

from xgen.posttrain.preference.objective import PackedPairs, sums_and_lengths
from xgen.posttrain.two_pass import TwoPassLoss
from xgen.spec import Preference, Trained
from xgen.train.microbatch import Given, MicroBatch, prepare
from xgen.train.trainer import JobTrainer


class PairTrainer(JobTrainer):
    """Its loss takes two passes."""

    loss_fn: TwoPassLoss
    job: Preference

    @classmethod
    def adapt(cls, config: JobTrainer.Config, job: Trained) -> JobTrainer.Config:
        config = super().adapt(config, job)
        config.loss = TwoPassLoss.Config(num_chunks=cast(ChunkedLossWrapper.Config, config.loss).num_chunks)
        return config

    @torch.no_grad()
    def answer_logprobs(self, given: Given) -> torch.Tensor:
        """[rows, most, 2]: of both answers of each pair, by the weights that the model has; 0 where there is none."""
        batch = prepare(self, *given)
        with self.train_context():
            logprobs = self.loss_fn.logprobs(self.model_parts[0](batch.tokens, **batch.model_inputs), batch.labels)
        sums, _ = sums_and_lengths(logprobs, packed_pairs(batch), self.over_context)
        by_pair: torch.Tensor = sums.unflatten(1, (-1, 2))
        return by_pair

    @property
    def speaks(self) -> bool:
        """Of the ranks that have parts of the same sequences, and know all of what is said of them, one says it."""
        mesh = self.parallel_dims.get_optional_mesh("cp")
        return mesh is None or mesh.get_local_rank() == 0


def packed_pairs(batch: MicroBatch) -> PackedPairs:
    return PackedPairs(batch.extras["answers"], batch.extras["pairs"], batch.extras.get("reference"))
