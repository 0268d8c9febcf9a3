"""Loss, accuracy and margin on held-out pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from xgen.data.samples import IGNORE
from xgen.posttrain.preference.objective import MEASURED, weigh_pairs
from xgen.posttrain.preference.pair_trainer import packed_pairs
from xgen.train.agreement import Agreement
from xgen.train.loader import as_given
from xgen.train.microbatch import prepare
from xgen.train.validation import Domain, DomainLoss, Validation

if TYPE_CHECKING:
    from xgen.posttrain.preference.trainer import PreferenceTrainer


@dataclass(frozen=True)
class PairLoss(DomainLoss):
    """`loss` is the mean over pairs. accuracy: of the pairs whose better answer has the higher reward, 0 to 1; rewards
    as in `PreferenceResult`."""

    pairs: int
    accuracy: float
    margin: float
    chosen_reward: float
    rejected_reward: float


class PairValidation(Validation):
    """By source. `by_position` stays empty: a pair is judged as a whole."""

    _trainer: PreferenceTrainer

    def measure(self, domain: Domain, agreement: Agreement) -> PairLoss | None:
        trainer = self._trainer
        mesh = trainer.parallel_dims.get_optional_mesh("batch")
        ranks, rank = (mesh.size(), mesh.get_local_rank()) if mesh is not None else (1, 0)
        sums = torch.zeros(3 + len(MEASURED), dtype=torch.float64)  # pairs, tokens, loss, and what is measured
        for first in range(0, domain.num_samples, ranks):
            agreement.begin()
            given = inputs, labels = as_given(domain.samples.batch(first + rank, 1))
            if first + rank >= domain.num_samples:  # a rank more than samples: it computes for the others' sake
                labels.fill_(IGNORE)
                inputs["answers"].fill_(-1)
                inputs["pairs"].fill_(-1)
            trainer.add_reference([given])
            batch = prepare(trainer, *given)
            with trainer.train_context():
                hidden = trainer.model_parts[0](batch.tokens, **batch.model_inputs)
                logprobs = trainer.loss_fn.logprobs(hidden, batch.labels)
            one = torch.ones((), device=trainer.device)
            with torch.enable_grad():
                found = weigh_pairs(trainer.job.loss, logprobs, packed_pairs(batch), one, trainer.over_context)
            counts = [(inputs["pairs"] >= 0).sum(), (labels != IGNORE).sum()]
            sums += torch.stack([*counts, found.loss, *found.measured]).double().cpu()
            agreement.end()
            trainer.context.progress.touch()
            if agreement.signal:
                return None
        dims = trainer.parallel_dims
        if not trainer.speaks or (dims.tp > 1 and dims.get_mesh("tp").get_local_rank() != 0):
            sums.zero_()
        dist.all_reduce(sums, group=trainer.cpu_group)
        pairs, tokens = int(sums[0]), int(sums[1])
        loss, *measured = (sums[2:] / sums[0]).tolist()
        return PairLoss(loss, tokens, {}, pairs, **dict(zip(MEASURED, measured, strict=True)))

    def record(self, found: Mapping[str, DomainLoss], seconds: float) -> None:
        super().record(found, seconds)
        pairs = {name: loss for name, loss in found.items() if isinstance(loss, PairLoss)}
        if self._trainer.context.rank == 0:
            print(
                "held-out accuracy: " + ", ".join(f"{name} {one.accuracy:.3f}" for name, one in pairs.items()),
                flush=True,
            )
        if self._trainer.exporter:
            values = {f"train_validation_accuracy/{name}": one.accuracy for name, one in pairs.items()}
            self._trainer.exporter.on_extra(values)
