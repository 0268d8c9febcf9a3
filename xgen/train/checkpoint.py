"""Checkpoints that prove themselves: built aside, checksummed by the ranks that wrote them, renamed into place last.

torch.distributed.checkpoint writes and reads the shards; on its own it loads a flipped byte without a word and dies
of a truncated file (seen), so nothing is loaded that its manifest does not vouch for.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torchtitan.components.checkpointer.base import (
    DATALOADER,
    LR_SCHEDULER,
    MODEL,
    OPTIMIZER,
    TRAIN_STATE,
    BaseCheckpointManager,
    ModelWrapper,
)
from torchtitan.tools.logging import logger

from xgen.runs import Refused, TaskContext
from xgen.train.loader import StoreLoader
from xgen.train.manifest import Fault, FileEntry, Manifest, describe, sync_folder, verify
from xgen.train.rng import load_rng, save_rng

if TYPE_CHECKING:
    from xgen.train.trainer import PretrainTrainer


class VerifiedCheckpoints(BaseCheckpointManager):
    """Saves and restores the whole state of a run. Every method is called by all ranks together."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseCheckpointManager.Config):
        enable: bool = True
        interval: int = 500
        keep: int = 2
        create_seed_checkpoint: bool = False
        load_step: int = -1

    def __init__(
        self,
        config: Config,
        *,
        dataloader: StoreLoader,
        model_parts: list[torch.nn.Module],
        optimizers: Any,
        lr_schedulers: Any,
        states: dict[str, Any],
        **_: Any,
    ) -> None:
        self.enable, self.save_future = True, None
        self._interval, self._keep = config.interval, config.keep
        self._loader = dataloader
        self._trainer: PretrainTrainer = states["train_state"]
        self._context: TaskContext = self._trainer.context
        self._states = {
            MODEL: ModelWrapper(model_parts),
            OPTIMIZER: optimizers,
            LR_SCHEDULER: lr_schedulers,
            DATALOADER: dataloader,
            TRAIN_STATE: self._trainer,
        }
        self.durable_step = 0
        self.restored_step = 0

    @property
    def _folder(self) -> Path:
        return self._context.run.checkpoints_dir

    def save_now(self, step: int) -> None:
        """Save at this step unless it is durable already. Raises OSError on failure: the caller needs it."""
        if step != self.durable_step:
            self._write(step)

    def _save(self, curr_step: int, last_step: bool = False) -> bool:
        if last_step:
            self.save_now(curr_step)
            return True
        if curr_step % self._interval:
            return False
        try:
            self.save_now(curr_step)
        except OSError as error:
            # Training is worth more than one checkpoint: the next one may succeed, and the one before is still there.
            logger.error("checkpoint of step %d failed, training goes on: %s", curr_step, error)
            return False
        return True

    @torch.no_grad()
    def _write(self, step: int) -> None:
        began = time.perf_counter()
        events, group = self._context.events, self._trainer.cpu_group
        if events:
            events.write("checkpoint_begin", step=step)
        building = self._folder / f".step-{step}.{self._context.attempt}.tmp"
        entries: list[FileEntry] = []
        error = ""
        try:
            if self._context.rank == 0:
                shutil.rmtree(building, ignore_errors=True)
                building.mkdir()
            self._agree_that_all_is_well("")
            # Not `process_group=group`: shards of GPU tensors are planned over the default group.
            save(self._states, checkpoint_id=building)
            save_rng(building / f"rng.{self._context.rank}.pt")
            entries = [describe(path) for path in self._own_files(building)]
        except (OSError, CheckpointException, RuntimeError) as failure:
            error = f"rank {self._context.rank}: {_root_cause(failure)}"
        gathered: list[tuple[str, list[FileEntry]]] = [("", [])] * self._context.world_size
        dist.all_gather_object(gathered, (error, entries), group=group)
        error = next((said for said, _ in gathered if said), "")
        if self._context.rank == 0 and not error:
            error = self._publish(building, step, [entry for _, part in gathered for entry in part])
        error = self._agree_that_all_is_well(error)
        if error:
            if self._context.rank == 0:
                shutil.rmtree(building, ignore_errors=True)
            if events:
                events.write("checkpoint_failed", step=step, reason=error)
            raise OSError(error)
        self.durable_step = step
        seconds = time.perf_counter() - began
        if events:
            tokens = self._trainer.tokens_trained
            events.write("checkpoint_durable", step=step, seconds=round(seconds, 3), tokens=tokens, durable=True)
            self._prune()
        if self._trainer.exporter:
            self._trainer.exporter.on_checkpoint(step, seconds, time.time())

    def _own_files(self, folder: Path) -> list[Path]:
        rank = self._context.rank
        files = [*folder.glob(f"__{rank}_*.distcp"), folder / f"rng.{rank}.pt"]
        return [*files, folder / ".metadata"] if rank == 0 else files

    def _publish(self, building: Path, step: int, entries: list[FileEntry]) -> str:
        """Rank 0: the manifest, then the rename that makes the checkpoint count. Returns what went wrong, or ''."""
        manifest = Manifest(
            step=step,
            tokens=self._trainer.tokens_trained,
            next_sample=self._loader.next_sample,
            world_size=self._context.world_size,
            store=self._loader.store.meta.fingerprint,
            torch=torch.__version__,
            torchtitan=version("torchtitan"),
            files=tuple(sorted(entries, key=lambda entry: entry.name)),
        )
        try:
            manifest.write(building)
            sync_folder(building)
            building.rename(self._folder / f"step-{step}")
            sync_folder(self._folder)
        except OSError as error:
            return f"rank 0: {error}"
        return ""

    def _agree_that_all_is_well(self, error: str) -> str:
        """Rank 0's word for all ranks."""
        said = [error]
        dist.broadcast_object_list(said, src=0, group=self._trainer.cpu_group)
        return said[0]

    def _prune(self) -> None:
        """Rank 0, after a checkpoint is durable: the newest `keep` stay. Broken ones are not among them."""
        for step in self._context.run.checkpoint_steps()[: -self._keep]:
            shutil.rmtree(self._folder / f"step-{step}", ignore_errors=True)

    @torch.no_grad()
    def _load(self, step: int = -1) -> bool:
        """Restore the newest checkpoint that verifies; False when the run has none at all.

        Raises Refused when it has some and none verifies: starting over would hide the loss of all of them.
        """
        del step
        context = self._context
        if context.rank == 0:
            for leftover in self._folder.glob(".step-*.tmp"):  # of attempts that died while they saved
                shutil.rmtree(leftover, ignore_errors=True)
        steps = [context.run.checkpoint_steps() if context.rank == 0 else []]
        dist.broadcast_object_list(steps, src=0, group=self._trainer.cpu_group)
        for candidate in reversed(steps[0]):
            fault = self._find_fault(self._folder / f"step-{candidate}")
            if not fault:
                self._restore(candidate)
                return True
            self._reject(candidate, fault)
        rejected = [sorted(p.name for p in self._folder.glob("step-*.rejected-*")) if context.rank == 0 else []]
        dist.broadcast_object_list(rejected, src=0, group=self._trainer.cpu_group)
        if rejected[0]:
            raise Refused(
                f"no checkpoint of {context.run.name} verifies, see {', '.join(rejected[0])} in {self._folder}; "
                "delete them to start from step 0"
            )
        return False

    def _find_fault(self, folder: Path) -> str:
        """The first fault of a checkpoint, '' for none. The ranks share the files among them."""
        context = self._context
        found = ""
        try:
            manifest = Manifest.read(folder)
            for number, entry in enumerate(manifest.files):
                if number % context.world_size == context.rank:
                    verify(folder, entry)
            if manifest.store != self._loader.store.meta.fingerprint:
                raise Refused(
                    f"the token store {self._loader.store.path} is not the one that {folder.name} was trained on; "
                    "restore it, or start a new run"
                )
            missing = {f"rng.{r}.pt" for r in range(context.world_size)} - {e.name for e in manifest.files}
            if missing:
                raise Refused(
                    f"{folder.name} was saved by {manifest.world_size} ranks, this attempt has {context.world_size}; "
                    "write the same resources"
                )
        except Fault as fault:
            found = str(fault)
        gathered = [""] * context.world_size
        dist.all_gather_object(gathered, found, group=self._trainer.cpu_group)
        return next((said for said in gathered if said), "")

    def _reject(self, step: int, fault: str) -> None:
        """Set a broken checkpoint aside, so that the step can be saved again, and say so."""
        if self._context.rank != 0:
            return
        folder = self._folder / f"step-{step}"
        aside = folder.with_name(f"{folder.name}.rejected-{self._context.attempt}")
        folder.rename(aside)
        logger.error("checkpoint %s is broken: %s; taking the one before it", folder.name, fault)
        assert self._context.events
        self._context.events.write("checkpoint_rejected", step=step, reason=fault, checkpoint=aside.name)

    def _restore(self, step: int) -> None:
        folder = self._folder / f"step-{step}"
        load(self._states, checkpoint_id=folder)
        load_rng(folder / f"rng.{self._context.rank}.pt")
        self.durable_step = self.restored_step = step

    def _wait_for_saving(self) -> None:
        pass  # saves are synchronous: durable when `save` returns

    def _maybe_wait_for_staging(self) -> None:
        pass

    def _close(self) -> None:
        pass


def _root_cause(error: BaseException) -> str:
    """DCP wraps the error of a rank in one of its own; the first inner one says what happened."""
    inner = (
        next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) and error.failures else error
    )
    return " ".join(f"{type(inner).__name__}: {inner}".split())[:300]
