"""torchtitan's trainer under our contract: verified resume, a stop that all ranks agree on, events.

It trains the weights of any job, step after step; `update.py` does one. What a kind of training does otherwise stands
in a subclass, at the points below the line "a kind's own", here and there; the rest it need not know.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch.distributed as dist
from torchtitan.distributed import utils as dist_utils
from torchtitan.trainer import Trainer

from xgen.data import MODULUS
from xgen.model import share_rope_tables
from xgen.runs import Diverged, EventName, TaskContext
from xgen.runs.slow import NOTABLE
from xgen.spec import Trained, Tuned
from xgen.train import startup
from xgen.train.agreement import Agreement
from xgen.train.asked import Asking, Profiling
from xgen.train.guard import StepGuard, Verdict
from xgen.train.recorder import StepRecorder
from xgen.train.rollback import roll_back
from xgen.train.schedule import StageSchedule
from xgen.train.straggler import Straggler
from xgen.train.update import UpdatingTrainer
from xgen.train.validation import validation_of

if TYPE_CHECKING:
    from xgen.metrics import RunExporter

_LONG_WAIT = 5.0  # seconds; so is one that waited longer for data between two reports
_PROGRESS_EVERY = 5.0  # seconds between progress events: what the ledger can be wrong by after a kill
_CPU_TIMEOUT = timedelta(minutes=10)  # a rank that is gone is noticed after this at the latest


@dataclass(frozen=True)
class TrainResult:
    """How the training ended. `signal` is '' unless it was told to stop."""

    status: Literal["finished", "stopped"]
    step: int
    signal: str = ""


class HeldOut(Protocol):
    """What is measured on data that the training never sees: as a rule a `Validation`. All ranks call it together."""

    ended: bool  # whether what it is at the end is known

    def due(self, step: int) -> bool: ...

    def run(self, agreement: Agreement) -> None:
        """Measure and record, unless the ranks agree to stop. The state of the training is as before."""
        ...


class JobTrainer(UpdatingTrainer):
    """One attempt of one rank."""

    @dataclass(kw_only=True, slots=True)
    class Config(Trainer.Config):
        pass

    metrics_processor: StepRecorder
    lr_schedulers: StageSchedule

    def __init__(self, config: Config, context: TaskContext, job: Trained, exporter: RunExporter | None) -> None:
        self.context, self.job, self.exporter = context, job, exporter  # an exporter on rank 0 only
        self.place = job.place_of(context.stage)
        self.guard = StepGuard(job.guard)
        self.data_digest = 0  # of all samples since step 0, over all ranks
        self._started = False  # whether this attempt has finished a step
        super().__init__(config)
        for part in self.model_parts:
            share_rope_tables(part)
        self.metrics_processor.connect(self)
        group = dist.new_group(backend="gloo", timeout=_CPU_TIMEOUT)
        assert isinstance(group, dist.ProcessGroup)  # of which every rank is a member
        self.cpu_group = group
        shared = (self.parallel_dims.get_optional_mesh(name) for name in ("tp", "cp", "pp"))
        counts = all(mesh is None or mesh.get_local_rank() == 0 for mesh in shared)
        self._agreement = Agreement(context.stop, group, counts, Asking(context))
        self._profiling = Profiling(context, self.device)
        self._last_progress = time.monotonic()
        self._straggler = Straggler(group, self.device, context.node)
        self._validation = self.make_validation()

    @property
    def tokens_trained(self) -> int:
        """Over all ranks, since step 0."""
        return self.place.tokens_at(int(self.step))

    @property
    def recent_loss(self) -> float | None:
        """Mean training loss of the steps since about the last checkpoint."""
        losses = self.metrics_processor.losses
        return sum(losses) / len(losses) if losses else None

    # ---- a kind's own

    @classmethod
    def adapt(cls, config: JobTrainer.Config, job: Trained) -> JobTrainer.Config:
        """What this trainer has other than `trainer_config` gives: its loader, say."""
        del job
        return config

    def begin(self) -> str | None:
        """Get the weights of step 0, or the frozen ones below adapters, where they are not random; returns whose they
        are. Raises Refused."""
        if not isinstance(self.job, Tuned):
            return None
        from xgen.train.init import load_initial

        return f"weights of {load_initial(self, self.model_parts)}"

    def make_validation(self) -> HeldOut | None:
        """Raises StoreError."""
        return validation_of(self)

    def extra_metrics(self) -> dict[str, float]:
        """Of the step that was just done, over all ranks, by their names in `xgen.metrics.extra`."""
        return {}

    def waits(self) -> dict[str, float]:
        """Seconds of this attempt, since its first step, that were phases of the ledger other than `train`."""
        return {"data_wait": self.metrics_processor.data_wait}

    # ---- the same for all

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "data_digest": self.data_digest, "guard": self.guard.state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.data_digest, self.guard.state = state_dict["data_digest"], state_dict["guard"]

    def tell(self, event: EventName, **fields: Any) -> None:
        """Write an event on rank 0. A full disk must not end the training, nor rank 0 alone leave a collective."""
        if self.context.events is None:
            return
        try:
            self.context.events.write(event, **fields)
        except OSError as error:
            print(f"cannot write the event {event}: {error}", file=sys.stderr, flush=True)

    def fit(self) -> TrainResult:
        """Restore, train until the last step or until any rank is told to stop, save, meet at a barrier."""
        self._restore()
        result = self._train()
        self._profiling.finish(int(self.step))
        self.context.progress.enter("stop")
        # All ranks leave together: one that exits early would be taken for a crash of the others.
        dist.barrier(group=self.cpu_group)
        return result

    def _restore(self) -> None:
        startup.mark("build")
        self.context.progress.enter("restore")
        self.tell("restore_begin")
        restored = self.checkpointer.load()
        beginning = None if restored and not self.job.adapters else self.begin()
        startup.mark("restore")
        self.context.progress.enter("first_step")
        checkpoint = f"step-{self.step}" if self.step else None
        self.tell("restore_end", step=self.step, checkpoint=checkpoint, reason=beginning)
        if self.exporter:
            self.exporter.resumed(self.step)

    def _train(self) -> TrainResult:
        total, restored = self.config.training.steps, self.step
        self._agreement.begin()  # a signal may have come before the first step
        self._agreement.end()
        if self._validation and self.step == total and not self._validation.ended:
            self._validate()  # the attempt before was ended between the save and this
        if self._validation and self.step == 0 and self._validation.due(0):
            self._validate()
        data = self._batches()
        self.metrics_processor.time_last_log = time.perf_counter()
        while self.step < total:
            if self._agreement.signal:
                return self._stop(self._agreement.signal)
            self.step += 1
            self.gc_handler.run(self.step)
            self._profiling.before_step(self._agreement.asked, int(self.step))
            self.train_step(data)
            self._profiling.after_step(int(self.step))
            if self._verdict.action == "rollback":
                with self.context.progress.during("restore"):
                    restored = roll_back(self)
                self.context.progress.enter("first_step")
                data.close()
                data = self._batches()
                continue
            self.context.progress.step(int(self.step))
            if self.step == restored + 1:
                self.context.progress.enter("train")
                self._event_after_first_step()
            self.checkpointer.save(self.step, last_step=self.step == total)
            if self._validation and self._validation.due(self.step):
                self._validate()
                self.metrics_processor.time_last_log = time.perf_counter()
            if self.job.straggler_every and self.step % self.job.straggler_every == 0:
                self._report_slowest()
            self._maybe_report_progress()
        if self._validation and not self._validation.ended:
            return self._stop(self._agreement.signal)  # the next attempt has only this left to do
        self._report_progress()
        return TrainResult("finished", self.step)

    def _validate(self) -> None:
        assert self._validation
        with self.context.progress.during("validation"):
            self._validation.run(self._agreement)

    def _batches(self) -> Generator[Any, None, None]:
        batches: Generator[Any, None, None] = self.batch_generator(self.dataloader)
        return batches

    def _end_agreement(self) -> int:
        """Digest of the step's samples, over all ranks."""
        digest = self._agreement.end()
        self.data_digest = (self.data_digest + digest) % MODULUS
        return digest

    def train_step(self, data_iterator: Iterator[Any]) -> None:
        rate = next(iter(self.lr_schedulers.get_metrics().values()))
        loss, grad_norm = self._update(data_iterator)
        self.lr_schedulers.step()
        self.metrics_processor.record(loss, grad_norm, rate, self._end_agreement(), self._verdict, self.extra_metrics())
        if self._verdict.action:
            self._act_on(self._verdict)

    def _act_on(self, verdict: Verdict) -> None:
        """Record a verdict. Raises Diverged, on all ranks, when the training is not to go on."""
        print(f"step {self.step}: {verdict.reason}: {verdict.action}", file=sys.stderr, flush=True)
        self.tell("guard", step=self.step, action=verdict.action, reason=verdict.reason)
        if verdict.action == "stop":
            raise Diverged(
                f"step {self.step}: {verdict.reason}; look at the data (xgen data audit), then write xgen resume "
                "with another guard (--set guard.spike=skip), or xgen fork with a lower learning rate"
            )

    def _event_after_first_step(self) -> None:
        if not self._started:
            self.metrics_processor.data_wait = 0.0  # what the first step waited for was a part of its start
        self.tell("first_step", step=self.step, startup=None if self._started else startup.mark("first_step"))
        self._started = True
        # From here on a collective that hangs is a fault: start-up and compilation are over.
        self.wait_for_others(self.config.comm.train_timeout_seconds)

    def wait_for_others(self, seconds: int) -> None:
        """The most that a collective waits from now on."""
        dist_utils.set_pg_timeouts(timeout=timedelta(seconds=seconds), parallel_dims=self.parallel_dims)

    def _stop(self, signal: str) -> TrainResult:
        self.tell("signal", signal=signal, step=self.step)
        self._report_progress()
        self.tell("stopping", step=self.step)
        self.context.progress.enter("stop")
        if self.step:
            self.checkpointer.save_now(self.step)
        return TrainResult("stopped", self.step, signal)

    def _report_slowest(self) -> None:
        slowest = self._straggler.report(self.metrics_processor.take_data_wait())
        if self.exporter:
            self.exporter.on_slowest(slowest.rank, slowest.ratio)
        if slowest.ratio > NOTABLE or slowest.data_wait > _LONG_WAIT:
            said = (
                f"rank {slowest.rank} takes {slowest.ratio:.2f} times as long as the median rank; "
                f"rank {slowest.data_rank} waited {slowest.data_wait:.1f} s for data"
            )
            facts = {"rank": slowest.rank, "ratio": slowest.ratio, "nodes": slowest.node}
            self.tell("straggler", step=self.step, reason=said, **facts)

    def _maybe_report_progress(self) -> None:
        if time.monotonic() - self._last_progress > _PROGRESS_EVERY:
            self._report_progress()

    def _report_progress(self) -> None:
        self._last_progress = time.monotonic()
        waits = {name: round(seconds, 3) for name, seconds in self.waits().items()}
        self.tell("progress", step=self.step, tokens=self.tokens_trained, data=f"{self.data_digest:016x}", **waits)
