"""What each stage's last checkpoint can do at each length: its loss on held-out text, in one process.

After a stage that extends the context, the loss at the new length must be below that of the checkpoint before, and at
the old lengths about the same. Read one model at a time; the optimizer's state is not read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load

from xgen.data import PackedSamples
from xgen.data.samples import IGNORE
from xgen.model import titan_model
from xgen.model.attention import dense_on_cpu
from xgen.runs import Refused, RunDir
from xgen.spec import Place, Pretrain
from xgen.train.ckpt_admin import survey
from xgen.train.validation import DomainLoss, bin_edges, domain_loss, held_out, in_bins, num_samples

_CHUNK = 4096  # positions whose logits are there at once


@dataclass(frozen=True)
class Cell:
    """A checkpoint at a length. `loss` is the mean over the domains; `domains` has each."""

    step: int
    stage: str
    seq_len: int
    loss: float
    domains: dict[str, DomainLoss]


def loss_matrix(
    run: RunDir, job: Pretrain, lengths: Sequence[int], tokens: int, tell: Callable[[Cell], None]
) -> list[Cell]:
    """Of the newest complete checkpoint of each stage, at each length; `tokens` of each domain. Raises Refused and
    StoreError."""
    if job.validation is None:
        raise Refused("validation: no held-out text; write --store FOLDER, or validation: {store: FOLDER} in the spec")
    complete = [checkpoint.step for checkpoint in survey(run) if checkpoint.counts]
    found = [
        (place, max(steps))
        for place in job.places
        if (steps := [step for step in complete if place.first_step < step <= place.last_step])
    ]
    if not found:
        raise Refused(f"{run.name} has no complete checkpoint; wait for one, or see xgen checkpoints {run.name}")
    cells = []
    texts = {length: held_out(job, length) for length in lengths}
    for place, step in found:
        model = _load(run, job, place, step, max(lengths))
        for length, domains in texts.items():
            losses = {name: _loss(model, samples, tokens) for name, samples in domains.items()}
            mean = sum(loss.loss for loss in losses.values()) / len(losses)
            cells.append(Cell(step, place.stage.name, length, mean, losses))
            tell(cells[-1])
    return cells


def _load(run: RunDir, job: Pretrain, place: Place, step: int, seq_len: int) -> torch.nn.Module:
    stage = place.stage
    config = titan_model(job.model, max(seq_len, stage.seq_len), stage.rope_theta, stage.rope_scaling).model
    for layer in config.layers:
        layer.attention.inner_attention = dense_on_cpu(layer.attention.inner_attention)
    model: torch.nn.Module = config.build()
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    reader = FileSystemReader(run.checkpoints_dir / f"step-{step}")
    load(state, storage_reader=reader, planner=DefaultLoadPlanner(), no_dist=True)
    model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in state.items()})
    return model.eval()


@torch.no_grad()
def _loss(model: torch.nn.Module, samples: PackedSamples, tokens: int) -> DomainLoss:
    edges = bin_edges(samples.seq_len)
    sums = torch.zeros(len(edges) - 1, dtype=torch.float64)
    counts = torch.zeros_like(sums)
    head = model.get_submodule("lm_head")
    model._skip_lm_head = True  # type: ignore[assignment] # the logits of all positions at once would be gigabytes
    for sample in range(num_samples(samples, tokens)):
        batch = samples.batch(sample, 1)
        positions = torch.from_numpy(batch.positions)
        labels = torch.from_numpy(batch.labels).long()
        masks = model.get_attention_masks(positions)  # type: ignore[operator]
        hidden = model(torch.from_numpy(batch.tokens).long(), positions, masks)
        for begin in range(0, samples.seq_len, _CHUNK):
            part = slice(begin, begin + _CHUNK)
            losses = torch.nn.functional.cross_entropy(
                head(hidden[:, part]).flatten(0, 1).float(),
                labels[:, part].flatten(),
                ignore_index=IGNORE,
                reduction="none",
            ).view(1, -1)
            for number, wanted in enumerate(in_bins(labels[:, part], positions[:, part], edges)):
                inside = wanted != IGNORE
                sums[number] += losses[inside].double().sum()
                counts[number] += inside.sum()
    return domain_loss(sums, counts, edges)
