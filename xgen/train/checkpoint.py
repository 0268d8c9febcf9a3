"""Checkpoints that prove themselves: built aside, checksummed by the ranks that wrote them, renamed into place last.

torch.distributed.checkpoint writes and reads the shards; on its own it loads a flipped byte without a word and dies
of a truncated file (seen), so nothing is loaded that its manifest does not vouch for.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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


Answer = TypeVar("Answer")


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
        """All ranks take part in every exchange, whatever fails on one of them: none may be left waiting."""
        began = time.perf_counter()
        tell, group = self._trainer.tell, self._trainer.cpu_group
        tell("checkpoint_begin", step=step)
        building = self._folder / f".step-{step}.{self._context.attempt}.tmp"
        error = self._from_rank_0(lambda: _make_empty(building))
        if not error:
            gathered: list[tuple[str, list[FileEntry]]] = [("", [])] * self._context.world_size
            dist.all_gather_object(gathered, self._write_own(building), group=group)
            error = next((said for said, _ in gathered if said), "")
        if not error:
            entries = [entry for _, part in gathered for entry in part]
            error = self._from_rank_0(lambda: self._publish(building, step, entries))
        if error:
            if self._context.rank == 0:
                shutil.rmtree(building, ignore_errors=True)
            tell("checkpoint_failed", step=step, reason=error)
            raise OSError(error)
        self.durable_step = step
        seconds = time.perf_counter() - began
        tell(
            "checkpoint_durable",
            step=step,
            seconds=round(seconds, 3),
            tokens=self._trainer.tokens_trained,
            durable=True,
        )
        self._prune()
        if self._trainer.exporter:
            self._trainer.exporter.on_checkpoint(step, seconds, time.time())

    def _write_own(self, building: Path) -> tuple[str, list[FileEntry]]:
        """This rank's files, on disk and checksummed; or what went wrong, and nothing."""
        try:
            # Not `process_group=`: shards of GPU tensors are planned over the default group.
            save(self._states, checkpoint_id=building)
            save_rng(building / f"rng.{self._context.rank}.pt")
            return "", [describe(path) for path in self._own_files(building)]
        except (OSError, CheckpointException, RuntimeError) as failure:
            return f"rank {self._context.rank}: {_root_cause(failure)}", []

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

    def _from_rank_0(self, ask: Callable[[], Answer]) -> Answer:
        """What rank 0 answers, on all ranks; the others do not even ask."""
        said: list[Any] = [ask() if self._context.rank == 0 else None]
        dist.broadcast_object_list(said, src=0, group=self._trainer.cpu_group)
        answer: Answer = said[0]
        return answer

    def _prune(self) -> None:
        """Rank 0, after a checkpoint is durable: the newest `keep` stay. Broken ones are not among them."""
        if self._context.rank != 0:
            return
        for step in self._context.run.checkpoint_steps()[: -self._keep]:
            # Renamed first: a folder that is deleted half way must not look like a checkpoint.
            leaving = self._folder / f".step-{step}.old.tmp"
            try:
                (self._folder / f"step-{step}").rename(leaving)
            except OSError as error:
                logger.error("cannot delete checkpoint step-%d: %s", step, error)
            shutil.rmtree(leaving, ignore_errors=True)

    @torch.no_grad()
    def _load(self, step: int = -1) -> bool:
        """Restore the newest checkpoint that verifies; False when the run has none at all.

        Raises Refused when it has some and none verifies: starting over would hide the loss of all of them.
        """
        del step
        context = self._context
        if context.rank == 0:
            for leftover in self._folder.glob(".step-*.tmp"):  # of attempts that died while they saved or deleted
                shutil.rmtree(leftover, ignore_errors=True)
        for candidate in self._from_rank_0(self._candidates):
            fault = self._find_fault(self._folder / f"step-{candidate}")
            if not fault:
                self._restore(candidate)
                return True
            self._reject(candidate, fault)
        if rejected := self._from_rank_0(self._set_aside):
            raise Refused(
                f"no checkpoint of {context.run.name} verifies, see {', '.join(rejected)} in {self._folder}; "
                "delete them to start from step 0"
            )
        return False

    def _candidates(self) -> list[int]:
        """Steps with a folder, newest first. One without a manifest has lost it: the folder got its name last."""
        names = (folder.name.partition("-")[2] for folder in self._folder.glob("step-*"))
        return sorted((int(step) for step in names if step.isdecimal()), reverse=True)

    def _set_aside(self) -> list[str]:
        return sorted(folder.name for folder in self._folder.glob("step-*.rejected-*"))

    def _find_fault(self, folder: Path) -> str:
        """The first fault of a checkpoint, '' for none. The ranks share the files among them.

        Raises Refused, on all ranks, when the checkpoint may be sound but is not for this attempt.
        """
        context = self._context
        fault = refusal = ""
        try:
            manifest = Manifest.read(folder)
            refusal = self._why_refuse(manifest, folder.name)
            if not refusal:
                for entry in manifest.files[context.rank :: context.world_size]:
                    verify(folder, entry)
        except Fault as found:
            fault = str(found)
        gathered = [("", "")] * context.world_size
        dist.all_gather_object(gathered, (refusal, fault), group=self._trainer.cpu_group)
        if refusal := next((said for said, _ in gathered if said), ""):
            raise Refused(refusal)
        return next((said for _, said in gathered if said), "")

    def _why_refuse(self, manifest: Manifest, name: str) -> str:
        store, world_size = self._loader.store, self._context.world_size
        if manifest.store != store.meta.fingerprint:
            return (
                f"the token store {store.path} is not the one that {name} was trained on; "
                "restore it, or start a new run"
            )
        if manifest.world_size != world_size:
            return (
                f"{name} was saved by {manifest.world_size} ranks, this attempt has {world_size}; "
                "write the same resources"
            )
        return ""

    def _reject(self, step: int, fault: str) -> None:
        """Set a broken checkpoint aside, so that the step can be saved again, and say so."""
        if self._context.rank != 0:
            return
        folder = self._folder / f"step-{step}"
        aside = folder.with_name(f"{folder.name}.rejected-{self._context.attempt}")
        folder.rename(aside)
        logger.error("checkpoint %s is broken: %s; taking the one before it", folder.name, fault)
        self._trainer.tell("checkpoint_rejected", step=step, reason=fault, checkpoint=aside.name)

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


def _make_empty(folder: Path) -> str:
    """A new, empty folder. Returns what went wrong, or ''."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    except OSError as error:
        return f"rank 0: {error}"
    return ""


def _root_cause(error: BaseException) -> str:
    """DCP wraps the error of a rank in one of its own; the first inner one says what happened."""
    inner = (
        next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) and error.failures else error
    )
    return " ".join(f"{type(inner).__name__}: {inner}".split())[:300]
