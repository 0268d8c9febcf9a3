"""Loading the newest checkpoint that verifies, into any number of ranks and any layout of them.

torch.distributed.checkpoint on its own loads a flipped byte without a word and dies of a truncated file (seen), so
nothing is loaded that its manifest does not vouch for.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict_loader import load
from torchtitan.tools.logging import logger

from xgen.data import samples_of
from xgen.runs import Refused
from xgen.runs.origin import read_origin
from xgen.train import preverify
from xgen.train.manifest import Fault, Manifest, Mesh
from xgen.train.rng import load_rng, reseed_rng
from xgen.train.rollback import Skip
from xgen.train.together import from_all, from_rank_0

if TYPE_CHECKING:
    from xgen.train.trainer import JobTrainer

_LATER = ("train_state.guard",)  # what checkpoints of earlier versions lack


class Restorer:
    """Finds and loads. Every method is called by all ranks together."""

    def __init__(self, trainer: JobTrainer, states: dict[str, Any], data: str, mesh: Mesh) -> None:
        self._trainer, self._states, self._data, self._mesh = trainer, states, data, mesh
        self._context = trainer.context
        self._folder = self._context.run.checkpoints_dir

    def restore(self) -> Manifest | None:
        """Load the newest checkpoint that verifies; None when the run has none at all.

        Raises Refused when it has some and none verifies: starting over would hide the loss of all of them.
        """
        for candidate in from_rank_0(self._trainer, self._candidates):
            folder = self._folder / f"step-{candidate}"
            fault = self._find_fault(folder)
            if not fault:
                return self._load(folder)
            self._reject(candidate, fault)
        if rejected := from_rank_0(self._trainer, self._set_aside):
            raise Refused(
                f"no checkpoint of {self._context.run.name} verifies, see {', '.join(rejected)} in {self._folder}; "
                "delete them to start from step 0"
            )
        if first := self._trainer.place.first_step:
            name, run = self._trainer.place.stage.name, self._context.run.name
            raise Refused(
                f"stage {name} goes on from step {first}, and {run} has no checkpoint; write xgen resume {run}"
            )
        return None

    def skip_after(self, step: int) -> Skip | None:
        """What a rollback to this checkpoint left out."""
        return from_rank_0(self._trainer, lambda: Skip.read(self._folder / f"step-{step}"))

    def _candidates(self) -> list[int]:
        """Steps with a folder, newest first. One without a manifest has lost it: the folder got its name last."""
        names = (folder.name.partition("-")[2] for folder in self._folder.glob("step-*"))
        return sorted((int(step) for step in names if step.isdecimal()), reverse=True)

    def _set_aside(self) -> list[str]:
        return sorted(folder.name for folder in self._folder.glob("step-*.rejected-*"))

    def _find_fault(self, folder: Path) -> str:
        """The first fault of a checkpoint, '' for none.

        Raises Refused, on all ranks, when the checkpoint may be sound but is not for this job.
        """
        refusal = fault = ""
        try:
            refusal = self._why_refuse(Manifest.read(folder), folder.name)
            fault = "" if refusal else self._fault_of_share(folder)
        except Fault as found:
            fault = str(found)
        gathered = from_all(self._trainer, (refusal, fault))
        if refusal := next((said for said, _ in gathered if said), ""):
            raise Refused(refusal)
        return next((said for _, said in gathered if said), "")

    def _fault_of_share(self, folder: Path) -> str:
        rank, world_size = self._context.rank, self._context.world_size
        ahead = preverify.started()
        known = ahead.fault(folder, rank, world_size) if ahead else None
        return preverify.fault_of_share(folder, rank, world_size) if known is None else known

    def _why_refuse(self, manifest: Manifest, name: str) -> str:
        place, job = self._trainer.place, self._trainer.job
        if not place.first_step <= manifest.step <= place.last_step:
            belongs = job.place_after(manifest.step).stage.name
            return (
                f"stage {place.stage.name} is steps {place.first_step + 1} to {place.last_step}, and {name} is the "
                f"newest checkpoint that verifies; write xgen resume {self._context.run.name}, which goes on in stage "
                f"{belongs}"
            )
        before = self._data
        if manifest.step == place.first_step and place.index:
            before = samples_of(job, place.index - 1).fingerprint
        if manifest.data == before:
            return ""
        origin = read_origin(self._context.run)
        if origin and origin.data_changed and origin.step == manifest.step:
            return ""  # a fork to other data, from this very checkpoint
        fix = "restore it, or fork the run (xgen fork)"
        return f"the data of this job is not the one that {name} was trained on; {fix}"

    def _reject(self, step: int, fault: str) -> None:
        """Set a broken checkpoint aside, so that the step can be saved again, and say so."""
        if self._context.rank != 0:
            return
        folder = self._folder / f"step-{step}"
        aside = folder.with_name(f"{folder.name}.rejected-{self._context.attempt}")
        folder.rename(aside)
        logger.error("checkpoint %s is broken: %s; taking the one before it", folder.name, fault)
        self._trainer.tell("checkpoint_rejected", step=step, reason=fault, checkpoint=aside.name)

    def _load(self, folder: Path) -> Manifest:
        manifest = Manifest.read(folder)
        rank, world_size = self._context.rank, self._context.world_size
        load(self._states, checkpoint_id=folder, planner=_Planner())
        if (manifest.world_size, manifest.mesh or self._mesh) == (world_size, self._mesh):
            load_rng(folder / f"rng.{rank}.pt")
        else:
            reseed_rng(self._trainer.job.seed, manifest.step, rank)
            logger.info(
                "%s was saved by %d ranks as %s, and is resharded", folder.name, manifest.world_size, manifest.mesh
            )
        return manifest


class _Planner(DefaultLoadPlanner):
    """Loads what earlier versions saved, too: what they did not know keeps the value that it has."""

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        super().set_up_planner(state_dict, metadata, is_coordinator)
        assert metadata
        for name in _LATER:
            if name not in metadata.state_dict_metadata:
                del self.state_dict[name]


def clear_leftovers(folder: Path) -> list[Path]:
    """Rename what dead attempts left half written or half deleted; returns what is to be deleted.

    Renamed first: a writer process that outlived its attempt must not publish a folder that is being emptied.
    """
    leaving = []
    for leftover in folder.glob(".step-*.tmp"):
        if leftover.is_dir():
            leaving.append(set_aside_to_delete(leftover))
    return leaving


def set_aside_to_delete(folder: Path) -> Path:
    """A folder that is deleted half way must not look like a checkpoint. Raises OSError."""
    if folder.name.endswith(".old.tmp"):
        return folder
    leaving = folder.with_name(f".{folder.name.lstrip('.')}.old.tmp")
    if leaving.exists():
        shutil.rmtree(leaving, ignore_errors=True)
    return folder.rename(leaving)
