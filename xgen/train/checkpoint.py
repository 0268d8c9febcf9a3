"""Checkpoints that cost the training one copy in memory: staged, then written, proven and published by a process aside.

A save has two halves. All ranks together copy their state into host memory (`staging.py`); from then on the training
goes on, and the writer process of each rank (`write_process.py`) puts its part on disk. That of rank 0 waits for the
others' reports in the folder, writes the manifest, and renames the folder into place last. The second half has no
collective: no rank can hang because another one died.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor
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

from xgen.model.lora import is_adapter
from xgen.runs import TaskContext
from xgen.train.arena import Arena
from xgen.train.loader import StepLoader
from xgen.train.manifest import Manifest, Mesh
from xgen.train.moments import Moments
from xgen.train.pruning import Pruner
from xgen.train.restore import Restorer, clear_leftovers
from xgen.train.retention import Summary
from xgen.train.rng import rng_bytes
from xgen.train.staging import Stager
from xgen.train.upload import Copier
from xgen.train.weights import Named
from xgen.train.writer import Writer, report_for_writer

if TYPE_CHECKING:
    from xgen.train.trainer import JobTrainer

_STATES_OF_ADAMW = 3  # the weights and two moments, all of one size
_LAST_WRITES = 60.0  # seconds that the end of the trainer waits for its writer process
_LAST_COPY = 600.0  # seconds that it waits for the copies in the second place, unless it was told to stop


@dataclass(frozen=True)
class _Save:
    """A save whose second half is under way."""

    step: int
    building: Path
    token: int  # tells its reports from those of another try at the same step
    began: float  # time.perf_counter()
    stall: float  # seconds that the training stood still
    summary: Summary
    tokens: int
    waited_for: bool


class VerifiedCheckpoints(BaseCheckpointManager):
    """Saves and restores the whole state of a run. Every public method is called by all ranks together."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseCheckpointManager.Config):
        enable: bool = True
        interval: int = 500
        keep: int = 2
        keep_every: int = 0
        keep_best: int = 0
        asynchronous: bool = True
        copy_to: str = ""
        create_seed_checkpoint: bool = False
        load_step: int = -1

    def __init__(
        self,
        config: Config,
        *,
        dataloader: StepLoader,
        model_parts: list[torch.nn.Module],
        optimizers: Any,
        lr_schedulers: Any,
        states: dict[str, Any],
        **_: Any,
    ) -> None:
        self.save_future = None
        self._config = config
        self._loader = dataloader
        self._trainer: JobTrainer = states["train_state"]
        self._context: TaskContext = self._trainer.context
        self._states = {
            MODEL: Named(model_parts, is_adapter) if self._trainer.job.adapters else ModelWrapper(model_parts),
            OPTIMIZER: Moments(optimizers),
            LR_SCHEDULER: lr_schedulers,
            DATALOADER: dataloader,
            TRAIN_STATE: self._trainer,
        }
        self.durable_step = 0
        self.restored_step = 0
        self._arena = Arena()
        pipeline = self._trainer.parallel_dims.get_optional_mesh("pp")
        first = self._context.rank == 0 if pipeline is None else 0 in pipeline.mesh  # of a part of the model
        self._stager = Stager(self._arena, self._context.rank, plans_whole=first)
        self._writer = Writer(self._arena.fd)
        trained = (p for part in model_parts for p in part.parameters() if p.requires_grad)
        self._arena.prepare(_STATES_OF_ADAMW * sum(map(_local_bytes, trained)))
        self._under_way: _Save | None = None
        self._failure = (0, "")  # step and reason of a save that failed here, until all ranks know
        self._last_error = ""
        self._num_tries = 0
        run, rules = self._context.run, (config.keep, config.keep_every, config.keep_best)
        # A stage is begun again, forked and compared from where the one before it ended.
        ends = frozenset(place.last_step for place in self._trainer.job.places)
        self._pruner = Pruner(run, self._writer, rules, ends)
        self._copier = Copier(config.copy_to, run.name) if config.copy_to and self._context.rank == 0 else None
        self.enable = True  # last: torchtitan closes what is enabled, however little of it there is

    @property
    def _folder(self) -> Path:
        return self._context.run.checkpoints_dir

    @property
    def _mesh(self) -> Mesh:
        dims = self._trainer.parallel_dims
        return Mesh(replicate=dims.dp_replicate, fsdp=dims.dp_shard, tp=dims.tp, cp=dims.cp, pp=dims.pp)

    def save_now(self, step: int) -> None:
        """Return when this step is durable. One that is under way is finished, and is enough if it is of this step.

        Raises OSError on failure, on all ranks: the caller needs it.
        """
        self._settle()
        if step == self.durable_step:
            return
        self._begin(step, wait=True)
        self._settle()
        if step != self.durable_step:
            said = [self._last_error]
            dist.broadcast_object_list(said, src=0, group=self._trainer.cpu_group)
            raise OSError(said[0])

    def newest(self) -> int:
        """Step of the newest checkpoint, once what is being written is written; 0 when there is none."""
        self._settle()
        return self.durable_step

    def load_again(self) -> None:
        """Go back to the newest checkpoint in the midst of training. Raises OSError when somebody took all away."""
        if not self._load():
            raise OSError(f"there is no checkpoint any more in {self._folder}")

    def _save(self, curr_step: int, last_step: bool = False) -> bool:
        self._poll()
        if last_step:
            self.save_now(curr_step)
            return True
        if curr_step % self._config.interval:
            return False
        if busy := self._agree():
            self._tell_failure(
                curr_step, f"skipped: the checkpoint before it is still being written since {busy:.1f} s"
            )
            return False
        try:
            if self._config.asynchronous:
                self._begin(curr_step, wait=False)
            else:
                self.save_now(curr_step)
        except OSError as error:
            # Training is worth more than one checkpoint: the next one may succeed, and the one before is still there.
            logger.error("checkpoint of step %d failed, training goes on: %s", curr_step, error)
            return False
        return True

    @torch.no_grad()
    def _begin(self, step: int, wait: bool) -> None:
        """Stage the state and have it written. Raises OSError, on all ranks, when it cannot be staged."""
        began = time.perf_counter()
        self._trainer.tell("checkpoint_begin", step=step)
        self._num_tries += 1
        building = self._folder / f".step-{step}.{self._context.attempt}.tmp"
        try:
            # Not `process_group=`: shards of GPU tensors are planned over the default group. It tells all ranks of
            # what fails on one.
            with self._context.progress.during("checkpoint"):
                save(self._states, storage_writer=self._stager, planner=self._stager.planner())
        except (CheckpointException, RuntimeError) as failure:
            error = _root_cause(failure)
            self._stager.forget_plans()
            self._tell_failure(step, error)
            raise OSError(error) from None
        token = self._context.attempt << 32 | self._num_tries
        manifest = self._manifest(step)
        error = self._order(building, token, manifest)
        stall = time.perf_counter() - began
        summary = Summary(step, manifest.loss)
        under_way = _Save(step, building, token, began, stall, summary, manifest.tokens, wait)
        if not wait:
            self._trainer.tell("checkpoint_staged", step=step, seconds=round(stall, 3))
        if error:
            self._conclude(under_way, error)
        else:
            self._under_way = under_way

    def _order(self, building: Path, token: int, manifest: Manifest) -> str:
        """Give this rank's part to its writer process. Returns what went wrong, or ''."""
        rank = self._context.rank
        order: dict[str, Any] = {
            "step": manifest.step,
            "token": token,
            "rank": rank,
            "world_size": self._context.world_size,
            "building": str(building),
        }
        if rank == 0:
            fields = manifest.model_dump(mode="json", exclude={"files", "saved_at"})
            order["publish"] = {"final": str(self._folder / f"step-{manifest.step}"), "manifest": fields}
        try:
            self._stager.add(f"rng.{rank}.pt", rng_bytes())
            self._writer.save(order | {"files": [asdict(file) for file in self._stager.files]})
        except OSError as failure:
            return f"rank {rank}: {failure}"
        return ""

    def _manifest(self, step: int) -> Manifest:
        """All of it but the files, which are not written yet."""
        trainer = self._trainer
        loss = trainer.recent_loss
        return Manifest(
            step=step,
            tokens=trainer.tokens_trained,
            next_sample=self._loader.next_sample,
            data_digest=f"{trainer.data_digest:016x}",
            loss=loss if loss is not None and math.isfinite(loss) else None,  # JSON knows no NaN
            world_size=self._context.world_size,
            mesh=self._mesh,
            data=self._loader.fingerprint,
            torch=torch.__version__,
            torchtitan=version("torchtitan"),
            attempt=self._context.attempt,
            files=(),
        )

    def _poll(self) -> None:
        """Hear what became of the save under way, without waiting."""
        answer = self._writer.answer()
        if answer is not None and self._under_way:
            under_way, self._under_way = self._under_way, None
            self._conclude(under_way, answer)
        if self._copier and (copied := self._copier.ended()):
            step, error, seconds = copied
            if error:
                self._tell_failure(step, error)
            else:
                self._trainer.tell("checkpoint_copied", step=step, seconds=round(seconds, 3))

    def _agree(self) -> float:
        """Seconds for which any rank has been writing, 0 when none is; all ranks then know the same durable step."""
        self._poll()
        busy = time.perf_counter() - self._under_way.began if self._under_way else 0.0
        state = torch.tensor([busy, bool(self._failure[1]), self.durable_step], dtype=torch.float64)
        dist.all_reduce(state, op=dist.ReduceOp.MAX, group=self._trainer.cpu_group)
        self.durable_step = int(state[2])
        if state[1]:
            self._share_failures()
        return float(state[0])

    def _settle(self) -> None:
        """Wait until nothing is being written on any rank: for as long as it takes, for the disk may just be slow."""
        pause = 0.002
        with self._context.progress.during("checkpoint"):
            while self._agree():
                time.sleep(pause)
                pause = min(1.5 * pause, 0.2)

    def _share_failures(self) -> None:
        """A rank that could not even write that it failed says so here: rank 0 would wait for it in vain."""
        failures = [self._failure] * self._context.world_size
        dist.all_gather_object(failures, self._failure, group=self._trainer.cpu_group)
        self._failure = (0, "")
        under_way = self._under_way
        reasons = [reason for step, reason in failures if reason and under_way and step == under_way.step]
        if self._context.rank == 0 and under_way and reasons:
            self._writer.kill()
            self._writer.answer()
            self._under_way = None
            self._conclude(under_way, reasons[0])

    def _conclude(self, save: _Save, error: str) -> None:
        """The writer of this rank is done with its part; that of rank 0 with all of it."""
        if self._context.rank == 0:
            if error:
                self._pruner.delete([save.building])
                self._last_error = error
                self._tell_failure(save.step, error)
            else:
                self._on_durable(save)
        elif error:
            self._failure = (save.step, error)
            report_for_writer(save.building, self._context.rank, save.token, error)

    def _on_durable(self, save: _Save) -> None:
        """Rank 0: say so, then let go of what the rules let go."""
        self.durable_step = save.step
        seconds = time.perf_counter() - save.began
        self._trainer.tell(
            "checkpoint_durable",
            step=save.step,
            seconds=round(seconds, 3),
            stall=round(seconds if save.waited_for else save.stall, 3),
            tokens=save.tokens,
            # In the midst of training an fsync would wait for a disk that is busy; the folder itself is proof enough.
            durable=save.waited_for,
        )
        self._pruner.prune_after(save.summary)
        if self._copier:
            try:
                self._copier.copy(self._folder / f"step-{save.step}")
            except OSError as error:
                self._tell_failure(save.step, f"copy cannot be started: {error}")
        if self._trainer.exporter:
            held_up = seconds if save.waited_for else save.stall
            self._trainer.exporter.on_checkpoint(save.step, held_up, time.time())

    def _tell_failure(self, step: int, reason: str) -> None:
        self._trainer.tell("checkpoint_failed", step=step, reason=reason)

    @torch.no_grad()
    def _load(self, step: int = -1) -> bool:
        """Restore the newest checkpoint that verifies; False when the run has none at all. Raises Refused."""
        del step
        if self._context.rank == 0:
            self._pruner.delete(clear_leftovers(self._folder))
        restorer = Restorer(self._trainer, self._states, self._loader.fingerprint, self._mesh)
        manifest = restorer.restore()
        if manifest is None:
            return False
        if manifest.data != self._loader.fingerprint or manifest.step == self._trainer.place.first_step:
            self._loader.begin_at_step(manifest.step)  # sample numbers are those of another order, or stage
            self._trainer.guard.forget()  # and so are its losses
        if skip := restorer.skip_after(manifest.step):
            skip.apply(self._trainer)
        self.durable_step = self.restored_step = manifest.step
        return True

    def _wait_for_saving(self) -> None:
        pass  # torchtitan's own asynchronous saves: `save_future` is never set

    def _maybe_wait_for_staging(self) -> None:
        pass  # staged when `save` returns

    def _close(self) -> None:
        """Let the writer finish what it has, and hear what came of it: the attempt may end in the midst of a save."""
        self.enable = False  # torchtitan closes again when the object goes
        self._writer.close(_LAST_WRITES)
        self._poll()
        self._arena.close()
        if self._copier:
            deadline = time.monotonic() + (0 if self._context.stop else _LAST_COPY)
            while self._copier.busy:
                if time.monotonic() > deadline:
                    self._copier.stop()
                self._poll()
                time.sleep(0.05)


def _local_bytes(parameter: torch.Tensor) -> int:
    local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    return local.nbytes


def _root_cause(error: BaseException) -> str:
    """DCP wraps the error of a rank in one of its own; the first inner one says what happened."""
    if isinstance(error, CheckpointException) and error.failures:
        rank, (inner, _) = next(iter(error.failures.items()))
        return f"rank {rank}: " + " ".join(f"{type(inner).__name__}: {inner}".split())[:300]
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
