"""torchtitan's trainer under our contract: verified resume, a stop that all ranks agree on, events."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import torch.distributed as dist
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.distributed import utils as dist_utils
from torchtitan.trainer import Trainer

from xgen.data import MODULUS
from xgen.runs import EventName, TaskContext
from xgen.spec import Pretrain
from xgen.train import startup
from xgen.train.agreement import StopAgreement
from xgen.train.checkpoint import VerifiedCheckpoints
from xgen.train.loader import StoreLoader
from xgen.train.proof import DataProof
from xgen.train.steps import StepFile, StepRecord

if TYPE_CHECKING:
    from xgen.metrics import RunExporter

_PROGRESS_EVERY = 5.0  # seconds between progress events: what the ledger can be wrong by after a kill
_CPU_TIMEOUT = timedelta(minutes=10)  # a rank that is gone is noticed after this at the latest


@dataclass(frozen=True)
class TrainResult:
    """How the training ended. `signal` is '' unless it was told to stop."""

    status: Literal["finished", "stopped"]
    step: int
    signal: str = ""


class StepRecorder(MetricsProcessor):
    """Rank 0's record of every step: `metrics/steps.jsonl`, the exporter, one line of log now and then."""

    @dataclass(kw_only=True, slots=True)
    class Config(MetricsProcessor.Config):
        pass

    def connect(self, trainer: PretrainTrainer) -> None:
        self._trainer = trainer
        self.time_last_log = time.perf_counter()
        self._last_printed = 0.0
        self.data_wait = 0.0  # seconds of this attempt
        self.losses: deque[float] = deque(maxlen=trainer.job.checkpoint.every)
        self._file = StepFile(trainer.context.run.metrics_dir / "steps.jsonl") if trainer.context.rank == 0 else None

    def log(
        self,
        step: int,
        global_avg_loss: float,
        global_max_loss: float,
        grad_norm: float,
        extra_metrics: dict[str, Any] | None = None,
    ) -> None:
        """Called by torchtitan's train_step on every rank, with the loss of all ranks."""
        del global_max_loss
        digest = self._trainer.end_step_proof()
        self.losses.append(global_avg_loss)
        now = time.perf_counter()
        seconds, self.time_last_log = now - self.time_last_log, now
        data_wait = sum(self.data_loading_times)
        self.data_loading_times.clear()
        self.ntokens_since_last_log = 0
        self.data_wait += data_wait
        if self._file is None:
            return
        rate = next(value for key, value in (extra_metrics or {}).items() if key.startswith("lr/"))
        tokens = self._trainer.tokens_trained
        self._file.append(
            StepRecord(
                step,
                global_avg_loss,
                global_avg_loss.hex(),
                grad_norm,
                rate,
                tokens,
                round(seconds, 4),
                first_sample=self._trainer.dataloader.next_sample - self._trainer.job.stage.sequences_per_step,
                data=f"{digest:016x}",
            )
        )
        if self._trainer.exporter:
            self._trainer.exporter.on_step(step, global_avg_loss, grad_norm, rate, tokens, seconds, data_wait)
        if now - self._last_printed > 1.0 or step == self._trainer.config.training.steps:
            self._last_printed = now
            print(f"step {step} loss {global_avg_loss:.4f} grad_norm {grad_norm:.3f} {seconds:.2f} s", flush=True)

    def close(self) -> None:
        super().close()
        file: StepFile | None = getattr(self, "_file", None)  # a trainer that fails early never connects
        if file:
            file.close()


class PretrainTrainer(Trainer):
    """One attempt of one rank."""

    @dataclass(kw_only=True, slots=True)
    class Config(Trainer.Config):
        pass

    checkpointer: VerifiedCheckpoints
    dataloader: StoreLoader
    metrics_processor: StepRecorder

    def __init__(self, config: Config, context: TaskContext, job: Pretrain, exporter: RunExporter | None) -> None:
        self.context, self.job, self.exporter = context, job, exporter  # an exporter on rank 0 only
        self.data_digest = 0  # of all samples since step 0, over all ranks
        super().__init__(config)
        self.metrics_processor.connect(self)
        group = dist.new_group(backend="gloo", timeout=_CPU_TIMEOUT)
        assert isinstance(group, dist.ProcessGroup)  # of which every rank is a member
        self.cpu_group = group
        shared = (self.parallel_dims.get_optional_mesh(name) for name in ("tp", "cp", "pp"))
        self._proof = DataProof(group, counts=all(mesh is None or mesh.get_local_rank() == 0 for mesh in shared))
        self._last_progress = time.monotonic()

    @property
    def tokens_trained(self) -> int:
        """Over all ranks, since step 0."""
        return int(self.step) * self.job.stage.global_batch

    @property
    def recent_loss(self) -> float | None:
        """Mean training loss of the steps since about the last checkpoint."""
        losses = self.metrics_processor.losses
        return sum(losses) / len(losses) if losses else None

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "data_digest": self.data_digest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.data_digest = state_dict["data_digest"]

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
        # All ranks leave together: one that exits early would be taken for a crash of the others.
        dist.barrier(group=self.cpu_group)
        return result

    def _restore(self) -> None:
        startup.mark("build")
        self.tell("restore_begin")
        self.checkpointer.load()
        startup.mark("restore")
        self.tell("restore_end", step=self.step, checkpoint=f"step-{self.step}" if self.step else None)
        if self.exporter:
            self.exporter.resumed(self.step)

    def _train(self) -> TrainResult:
        total, restored = self.config.training.steps, self.step
        agreement = StopAgreement(self.context.stop, self.cpu_group)
        agreement.begin()
        data = self._proven(self.batch_generator(self.dataloader))
        self.metrics_processor.time_last_log = time.perf_counter()
        while self.step < total:
            if signal := agreement.decided():
                return self._stop(signal)
            agreement.begin()
            self.step += 1
            self.gc_handler.run(self.step)
            self.train_step(data)
            if self.step == restored + 1:
                self._event_after_first_step()
            self.checkpointer.save(self.step, last_step=self.step == total)
            self._maybe_report_progress()
        agreement.decided()  # the last one is still under way
        self._report_progress()
        return TrainResult("finished", self.step)

    def _proven(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches; with the last of a step its proof begins, and runs while the step computes."""
        per_step = self.gradient_accumulation_steps * self.num_pipeline_parallel_microbatches
        for number, batch in enumerate(batches, start=1):
            if number % per_step == 0:
                self._proof.begin(self.dataloader.take_digest())
            yield batch

    def end_step_proof(self) -> int:
        """Digest of the step's samples, over all ranks. Called once a step, by all."""
        digest = self._proof.end()
        self.data_digest = (self.data_digest + digest) % MODULUS
        return digest

    def _event_after_first_step(self) -> None:
        self.tell("first_step", step=self.step, startup=startup.mark("first_step"))
        # From here on a collective that hangs is a fault: start-up and compilation are over.
        timeout = timedelta(seconds=self.config.comm.train_timeout_seconds)
        dist_utils.set_pg_timeouts(timeout=timeout, parallel_dims=self.parallel_dims)

    def _stop(self, signal: str) -> TrainResult:
        self.tell("signal", signal=signal, step=self.step)
        self._report_progress()
        self.tell("stopping", step=self.step)
        if self.step:
            self.checkpointer.save_now(self.step)
        return TrainResult("stopped", self.step, signal)

    def _maybe_report_progress(self) -> None:
        if time.monotonic() - self._last_progress > _PROGRESS_EVERY:
            self._report_progress()

    def _report_progress(self) -> None:
        self._last_progress = time.monotonic()
        wait = round(self.metrics_processor.data_wait, 3)
        data = f"{self.data_digest:016x}"
        self.tell("progress", step=self.step, tokens=self.tokens_trained, data_wait=wait, data=data)
