"""The loss on held-out text, per domain and per position in the document, in `metrics/validation.jsonl`.

Positions are those in a document, which is how much the model has read before it predicts. They are put into bins that
double: a model that uses its context has a lower loss in each bin than in the one before.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from xgen.data import PackedSamples, StoreError, TokenStore, make_mixture
from xgen.data.samples import IGNORE
from xgen.spec import Pretrain, Share

if TYPE_CHECKING:
    from xgen.train.trainer import PretrainTrainer

_NUM_BINS = 5


@dataclass(frozen=True)
class DomainLoss:
    """Mean loss of one domain; `by_position` by the first position of each bin, None where no token is in it."""

    loss: float
    tokens: int
    by_position: dict[int, float | None]


def held_out(job: Pretrain, seq_len: int) -> dict[str, PackedSamples]:
    """Samples of each domain of the validation store, in an order that nothing changes. Raises StoreError."""
    assert job.validation
    store = TokenStore.open(Path(job.validation.store))
    if store.meta.vocab_size > job.model.vocab_size:
        what = f"holds ids of a vocabulary of {store.meta.vocab_size}, and the model's is {job.model.vocab_size}"
        raise StoreError(job.validation.store, what, "build it with the tokenizer of the other stores")
    domains = [domain.name for domain in store.meta.domains]
    return {
        name: PackedSamples(make_mixture({"held-out": store}, {f"held-out/{name}": Share(weight=1)}), seq_len, seed=0)
        for name in domains
    }


def num_samples(samples: PackedSamples, tokens: int, multiple: int) -> int:
    """How many samples give about `tokens`, or all that the domain has, as a multiple of the ranks that share them."""
    has = sum(component.num_tokens for component in samples.mixture.components)
    return max(1, min(tokens, has) // (samples.seq_len * multiple)) * multiple


def bin_edges(seq_len: int) -> list[int]:
    """First position of each bin, and the end of the last: 0, L/16, L/8, L/4, L/2, L."""
    return [0] + [max(1, seq_len >> shift) for shift in range(_NUM_BINS - 1, -1, -1)]


def in_bins(labels: torch.Tensor, positions: torch.Tensor, edges: list[int]) -> Iterator[torch.Tensor]:
    """The labels once for each bin, the others left out."""
    for low, high in pairwise(edges):
        yield torch.where((positions >= low) & (positions < high), labels, IGNORE)


def domain_loss(sums: torch.Tensor, counts: torch.Tensor, edges: list[int]) -> DomainLoss:
    """From the summed losses and the tokens of each bin, over all ranks."""
    bins = [float(s / c) if c else None for s, c in zip(sums, counts, strict=True)]
    by_position = dict(zip(edges[:-1], bins, strict=True))
    return DomainLoss(float(sums.sum() / counts.sum()), int(counts.sum()), by_position)


class Validation:
    """Held-out loss of the model in training. Every method is called by all ranks together."""

    def __init__(self, trainer: PretrainTrainer) -> None:
        """Raises StoreError."""
        self._trainer = trainer
        assert trainer.job.validation
        self._policy = trainer.job.validation
        self._seq_len = trainer.place.stage.seq_len
        self._domains = held_out(trainer.job, self._seq_len)
        self._edges = bin_edges(self._seq_len)

    def due(self, step: int) -> bool:
        return step % self._policy.every == 0 or step == self._trainer.place.last_step

    def run(self) -> dict[str, DomainLoss]:
        """Loss by domain. The state of the training is as before."""
        trainer, began = self._trainer, time.perf_counter()
        seen = trainer.ntokens_seen  # torchtitan counts every batch that it prepares
        with torch.no_grad():
            found = {name: self._loss(samples) for name, samples in self._domains.items()}
        trainer.ntokens_seen = seen
        if trainer.context.rank == 0:
            self._record(found, time.perf_counter() - began)
        return found

    def _loss(self, samples: PackedSamples) -> DomainLoss:
        trainer = self._trainer
        mesh = trainer.parallel_dims.get_optional_mesh("batch")
        ranks, rank = (mesh.size(), mesh.get_local_rank()) if mesh is not None else (1, 0)
        sums = torch.zeros(len(self._edges) - 1, dtype=torch.float64)
        counts = torch.zeros_like(sums)
        for sample in range(rank, num_samples(samples, self._policy.tokens, ranks), ranks):
            batch = samples.batch(sample, 1)
            inputs = {"input": torch.from_numpy(batch.tokens).long(), "positions": torch.from_numpy(batch.positions)}
            moved = {name: value.to(trainer.device) for name, value in inputs.items()}
            targets = torch.from_numpy(batch.labels).long().to(trainer.device)
            tokens, labels, extra = trainer.post_dataloading_process(moved, targets)
            with trainer.train_context():
                hidden = trainer.model_parts[0](tokens, **extra)
                for number, wanted in enumerate(in_bins(labels, extra["positions"], self._edges)):
                    loss, _ = trainer.loss_fn(hidden, wanted)
                    sums[number] += float(loss)
                    counts[number] += int((wanted != IGNORE).sum())
        both = torch.stack([sums, counts])
        dims = trainer.parallel_dims
        if dims.tp > 1 and dims.get_mesh("tp").get_local_rank() != 0:
            both.zero_()  # the ranks of a tensor-parallel group have all computed the same
        dist.all_reduce(both, group=trainer.cpu_group)
        return domain_loss(both[0], both[1], self._edges)

    def _record(self, found: Mapping[str, DomainLoss], seconds: float) -> None:
        trainer = self._trainer
        record = {
            "step": int(trainer.step),
            "stage": trainer.place.stage.name,
            "tokens": trainer.tokens_trained,
            "seq_len": self._seq_len,
            "seconds": round(seconds, 3),
            "domains": {name: asdict(loss) for name, loss in found.items()},
        }
        said = ", ".join(f"{name} {loss.loss:.4f}" for name, loss in found.items())
        print(f"step {trainer.step} held-out loss: {said} ({seconds:.1f} s)", flush=True)
        file = trainer.context.run.metrics_dir / "validation.jsonl"
        try:
            fd = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o664)
            try:
                os.write(fd, (json.dumps(record) + "\n").encode())
            finally:
                os.close(fd)
        except OSError as error:
            print(f"{file}: cannot record the validation, training goes on: {error}", flush=True)
        if trainer.exporter:
            trainer.exporter.on_validation({name: loss.loss for name, loss in found.items()})
        if sinks := trainer.metrics_processor.sinks:
            sinks.tell({f"validation/{name}": loss.loss for name, loss in found.items()}, int(trainer.step))
