"""The loss on held-out text, per domain and per position in the document, in `metrics/validation.jsonl`.

Positions are those in a document, which is how much the model has read before it predicts. They are put into bins that
double: a model that uses its context has a lower loss in each bin than in the one before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from xgen.data import PackedSamples, StoreError, TokenStore, make_mixture
from xgen.data.chat.order import held_out_samples
from xgen.data.samples import IGNORE
from xgen.spec import Preference, Pretrain, Sft, Share
from xgen.train.agreement import Agreement
from xgen.train.loader import as_given
from xgen.train.microbatch import prepare
from xgen.train.records import RecordFile

if TYPE_CHECKING:
    from xgen.data import Samples
    from xgen.train.trainer import JobTrainer

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


def num_samples(samples: PackedSamples, tokens: int) -> int:
    """How many samples give about `tokens`, or all that the domain has."""
    has = sum(component.num_tokens for component in samples.mixture.components)
    return max(1, min(tokens, has) // samples.seq_len)


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


@dataclass(frozen=True)
class ValidationRecord:
    """One line of `metrics/validation.jsonl`."""

    step: int
    stage: str
    tokens: int  # trained on since step 0
    seq_len: int
    seconds: float
    domains: Mapping[str, DomainLoss]


@dataclass(frozen=True)
class Domain:
    """Held-out samples, and how many of them are taken: always the first."""

    samples: Samples
    num_samples: int


@dataclass(frozen=True)
class Policy:
    """On what, and when."""

    domains: Mapping[str, Domain]
    every: int  # steps; also at the end of a stage
    before_first: bool = False


def validation_of(trainer: JobTrainer, kind: type[Validation] | None = None) -> Validation | None:
    """By one of the `kind`, default: Validation. None for a job that wants none. Raises StoreError."""
    kind = kind or Validation
    job, seq_len = trainer.job, trainer.place.stage.seq_len
    if isinstance(job, Pretrain) and job.validation:
        tokens = job.validation.tokens
        domains = {name: Domain(text, num_samples(text, tokens)) for name, text in held_out(job, seq_len).items()}
        return kind(trainer, Policy(domains, job.validation.every))
    if isinstance(job, Sft | Preference) and job.validation:
        most = job.validation.sequences
        texts = held_out_samples(job, trainer.context.run.path)
        domains = {name: Domain(text, min(most, text.num_samples)) for name, text in texts.items()}
        return kind(trainer, Policy(domains, job.validation.every, before_first=True))
    return None


class Validation:
    """Held-out loss of the model in training. Every method is called by all ranks together."""

    def __init__(self, trainer: JobTrainer, policy: Policy) -> None:
        self._trainer, self._policy = trainer, policy
        self._seq_len = trainer.place.stage.seq_len
        self._edges = bin_edges(self._seq_len)
        path = trainer.context.run.metrics_dir / "validation.jsonl"
        self._file = RecordFile(path) if trainer.context.rank == 0 else None
        known = [self._file is not None and _has(path, trainer.place.last_step)]
        dist.broadcast_object_list(known, src=0, group=trainer.cpu_group)
        self.ended: bool = known[0]  # whether the loss at the end of the stage is known

    def due(self, step: int) -> bool:
        if step == 0:
            return self._policy.before_first
        return step % self._policy.every == 0 or step == self._trainer.place.last_step

    def run(self, agreement: Agreement) -> None:
        """Compute and record the loss by domain, unless the ranks agree to stop. The state of the training is as
        before."""
        trainer, began, step = self._trainer, time.perf_counter(), int(self._trainer.step)
        at_end = step == trainer.place.last_step
        self.ended = self.ended and not at_end
        trainer.tell("validation_begin", step=step)
        seen = trainer.ntokens_seen  # torchtitan counts every batch that it prepares
        with torch.no_grad():
            found = self._losses(agreement)
        trainer.ntokens_seen = seen
        seconds = round(time.perf_counter() - began, 3)
        trainer.tell("validation_end", step=step, seconds=seconds, reason=None if found else "told to stop")
        if found:
            self.ended = self.ended or at_end
            self.record(found, seconds)

    def _losses(self, agreement: Agreement) -> dict[str, DomainLoss]:
        """By domain; none when the ranks agree to stop."""
        found = {}
        for name, domain in self._policy.domains.items():
            loss = self.measure(domain, agreement)
            if loss is None:
                return {}
            found[name] = loss
        return found

    def measure(self, domain: Domain, agreement: Agreement) -> DomainLoss | None:
        """None when the ranks agree to stop."""
        trainer = self._trainer
        mesh = trainer.parallel_dims.get_optional_mesh("batch")
        ranks, rank = (mesh.size(), mesh.get_local_rank()) if mesh is not None else (1, 0)
        sums = torch.zeros(len(self._edges) - 1, dtype=torch.float64)
        counts = torch.zeros_like(sums)
        total = domain.num_samples
        for first in range(0, total, ranks):
            agreement.begin()
            sample = first + rank
            inputs, labels = as_given(domain.samples.batch(min(sample, total - 1), 1))
            if sample >= total:
                labels.fill_(IGNORE)  # a rank more than samples: it computes for the others' sake
            batch = prepare(trainer, inputs, labels)
            with trainer.train_context():
                hidden = trainer.model_parts[0](batch.tokens, **batch.model_inputs)
                for number, wanted in enumerate(in_bins(batch.labels, batch.model_inputs["positions"], self._edges)):
                    loss, _ = trainer.loss_fn(hidden, wanted)
                    sums[number] += float(loss)
                    counts[number] += int((wanted != IGNORE).sum())
            agreement.end()
            trainer.context.progress.touch()
            if agreement.signal:
                return None
        both = torch.stack([sums, counts])
        dims = trainer.parallel_dims
        if dims.tp > 1 and dims.get_mesh("tp").get_local_rank() != 0:
            both.zero_()  # the ranks of a tensor-parallel group have all computed the same
        dist.all_reduce(both, group=trainer.cpu_group)
        return domain_loss(both[0], both[1], self._edges)

    def record(self, found: Mapping[str, DomainLoss], seconds: float) -> None:
        if not self._file:
            return
        trainer, step, stage = self._trainer, int(self._trainer.step), self._trainer.place.stage.name
        self._file.append(ValidationRecord(step, stage, trainer.tokens_trained, self._seq_len, seconds, found))
        said = ", ".join(f"{name} {loss.loss:.4f}" for name, loss in found.items())
        print(f"step {step} held-out loss: {said} ({seconds:.1f} s)", flush=True)
        if trainer.exporter:
            trainer.exporter.on_validation({name: loss.loss for name, loss in found.items()})


def _has(path: Path, step: int) -> bool:
    return any(json.loads(line)["step"] == step for line in path.read_text().splitlines())
