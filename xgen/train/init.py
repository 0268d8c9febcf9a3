"""The weights that a post-training begins with: of a verified checkpoint of another run, or a Hugging Face folder.

What was taken is written down once (`init.json`): every later attempt takes the very same, or is refused.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from xgen.runs import Refused
from xgen.runs.origin import Beginning, read_beginning
from xgen.spec import ModelSpec, Tuned
from xgen.train import preverify
from xgen.train.manifest import checksum, manifest_fingerprint
from xgen.train.source import complete_ones, job_of, run_beside
from xgen.train.together import from_all, from_rank_0
from xgen.train.weights import (
    hf_files,
    hf_fingerprint,
    load_weights,
    open_hf,
    refuse_changed,
    weights_of,
)

if TYPE_CHECKING:
    from xgen.train.trainer import JobTrainer


def load_initial(trainer: JobTrainer, parts: list[torch.nn.Module]) -> Beginning:
    """Into the parameters of a model, split over the ranks in any way, but for those of adapters. Called by all ranks
    together. Raises Refused when they are not there, not sound, of another model, or not those of the attempt before.
    """
    job = trainer.job
    assert isinstance(job, Tuned)
    run = trainer.context.run.whole
    known = from_rank_0(trainer, lambda: read_beginning(run))
    if known is None and trainer.step:
        raise Refused(f"{run.path / 'init.json'}, which says what the adapters are of, is gone; restore it")
    found = _load_hf(trainer, job, parts, known) if job.init.hf else _load_run(trainer, job, parts, known)
    if known is None:
        refuse_changed(from_rank_0(trainer, lambda: found.write(run)), found.fingerprint)
    return found


def _load_hf(trainer: JobTrainer, job: Tuned, parts: list[torch.nn.Module], known: Beginning | None) -> Beginning:
    folder, context = Path(job.init.hf or ""), trainer.context
    weights = open_hf(folder)
    _refuse_other(job.model, weights.model, "init.hf", str(folder))
    share = hf_files(folder, weights)[context.rank :: context.world_size]
    sums = from_all(trainer, [checksum(file) for file in share])
    fingerprint = hf_fingerprint(one for some in sums for one in some)
    if known:
        refuse_changed(known, fingerprint)
    load_weights(parts, weights)
    return Beginning(run=None, path=str(folder), step=None, fingerprint=fingerprint, time=time.time())


def _load_run(trainer: JobTrainer, job: Tuned, parts: list[torch.nn.Module], known: Beginning | None) -> Beginning:
    run = run_beside(trainer.context.run.whole, job.init.run or "")
    parent = from_rank_0(trainer, lambda: job_of(run, "init.run"))
    _refuse_other(job.model, parent.model, "init.run", run.name)
    step = known.step if known else job.init.step
    if known:
        refuse_changed(known, from_rank_0(trainer, lambda: manifest_fingerprint(run.checkpoints_dir / f"step-{step}")))
    steps = from_rank_0(trainer, lambda: [one.step for one in complete_ones(run, step, "init.run")])
    faults = []
    for number in steps:
        folder = run.checkpoints_dir / f"step-{number}"
        try:
            weights = weights_of(run, parent, folder, lambda place: _verify(trainer, place))
        except _Unsound as fault:
            faults.append(str(fault))
            continue
        load_weights(parts, weights)
        if faults and trainer.context.rank == 0:
            print(f"init.run: {'; '.join(faults)}; taking {run.name}@{number} instead", flush=True)
        fingerprint = from_rank_0(trainer, partial(manifest_fingerprint, folder))
        return Beginning(run=run.name, path=str(run.path), step=number, fingerprint=fingerprint, time=time.time())
    raise Refused(f"init.run: no checkpoint of {run.name} verifies ({'; '.join(faults)}); restore one")


class _Unsound(Refused):
    pass


def _verify(trainer: JobTrainer, folder: Path) -> None:
    """All ranks share the reading, and come to the same."""
    mine = preverify.fault_of_share(folder, trainer.context.rank, trainer.context.world_size)
    if fault := next(filter(None, from_all(trainer, mine)), ""):
        raise _Unsound(f"{folder.name}: {fault}")


def _refuse_other(model: ModelSpec, there: ModelSpec, key: str, name: str) -> None:
    if differs := model.difference(there):
        own, other = getattr(model, differs), getattr(there, differs)
        raise Refused(f"model.{differs}: {own}, and {key} {name} has {other}; write the model that it is of")
