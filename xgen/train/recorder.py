"""Rank 0's record of every step: `metrics/steps.jsonl`, which sinks read, the exporter, now and then a line of log."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchtitan.components.metrics import MetricsProcessor

from xgen.train.guard import Verdict
from xgen.train.records import RecordFile
from xgen.train.sinks import Sinks
from xgen.train.steps import StepRecord

if TYPE_CHECKING:
    from xgen.train.trainer import JobTrainer


_PATIENCE = 30.0  # seconds that sinks get in the end
_HASTE = 3.0  # when another attempt follows, and the grace of a preemption may run


class StepRecorder(MetricsProcessor):
    """In the place of torchtitan's: the trainer tells it of every step, on all ranks."""

    @dataclass(kw_only=True, slots=True)
    class Config(MetricsProcessor.Config):
        pass

    def connect(self, trainer: JobTrainer) -> None:
        self._trainer = trainer
        self.time_last_log = time.perf_counter()
        self._last_printed = 0.0
        self.data_wait = 0.0  # seconds of this attempt
        self.losses: deque[float] = deque(maxlen=trainer.job.checkpoint.every)
        self._waited = 0.0  # of it, since the slowest rank was last looked for
        self._file = RecordFile(trainer.context.run.metrics_dir / "steps.jsonl") if trainer.context.rank == 0 else None
        self._sinks = Sinks(trainer.job, trainer.context.run) if trainer.context.rank == 0 else None

    def take_data_wait(self) -> float:
        """Seconds that this rank waited for data since it was last asked."""
        waited, self._waited = self.data_wait - self._waited, self.data_wait
        return waited

    def record(
        self, loss: float, grad_norm: float, rate: float, digest: int, verdict: Verdict, extra: Mapping[str, float]
    ) -> None:
        """One finished step; `loss`, `grad_norm` and `extra` over all ranks, `digest` of its samples."""
        if verdict.applies:
            self.losses.append(loss)
        now = time.perf_counter()
        seconds, self.time_last_log = now - self.time_last_log, now
        data_wait = sum(self.data_loading_times)
        self.data_loading_times.clear()
        self.ntokens_since_last_log = 0
        self.data_wait += data_wait
        if self._file is None:
            return
        trainer = self._trainer
        step, tokens = trainer.step, trainer.tokens_trained
        self._file.append(
            StepRecord(
                step,
                loss if math.isfinite(loss) else None,  # JSON knows no NaN
                loss.hex(),
                grad_norm if math.isfinite(grad_norm) else None,
                rate,
                tokens,
                round(seconds, 4),
                first_sample=trainer.dataloader.first_sample,
                data=f"{digest:016x}",
                stage=trainer.place.stage.name,
                time=round(time.time(), 3),
                guard=verdict.action,
                extra={name: value for name, value in extra.items() if math.isfinite(value)},
            )
        )
        if trainer.exporter:
            trainer.exporter.on_step(step, loss, grad_norm, rate, tokens, seconds, data_wait, trainer.guard.median_loss)
            trainer.exporter.on_extra(extra)
        if now - self._last_printed > 1.0 or step == trainer.place.last_step:
            self._last_printed = now
            print(f"step {step} loss {loss:.4f} grad_norm {grad_norm:.3f} {seconds:.2f} s", flush=True)

    def close(self) -> None:
        super().close()
        file: RecordFile | None = getattr(self, "_file", None)  # a trainer that fails early never connects
        if file:
            file.close()
        sinks: Sinks | None = getattr(self, "_sinks", None)
        if sinks:
            last = self._trainer.step == self._trainer.job.places[-1].last_step
            sinks.close(_PATIENCE if last else _HASTE)
