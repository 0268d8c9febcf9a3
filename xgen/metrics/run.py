"""What rank 0 of a run exports. Names, labels and units: docs/monitoring.md.

What concerns the whole run comes from its ledger and goes on where the attempt before ended. `run`, `attempt` and
`job_id` are labels of the target (discovery.py), not of each series. What is not known yet is absent, never 0: a
curve must not dip to 0 when an attempt starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from xgen.metrics.extra import families
from xgen.metrics.phases import PhaseCounters
from xgen.metrics.serve import Serving
from xgen.runs import GUARD_ACTIONS, Ledger, Refused

# seconds; from a tiny model on a CPU to 128k tokens on few GPUs
_STEP_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120)


class _LedgerCollector(Collector):
    """Time by phase, restarts and checkpoints, as the ledger has them at the moment of the scrape."""

    def __init__(self, ledger: Ledger, attempt: _AttemptCollector) -> None:
        self._ledger, self._phases, self._attempt = ledger, PhaseCounters(ledger), attempt

    def collect(self) -> Iterator[Metric]:
        ledger = self._ledger
        phases = CounterMetricFamily(
            "xgen_train_time_seconds", "Wall time of the run by phase; the phases sum to it.", labels=["phase"]
        )
        for phase, seconds in self._phases.read(time.time()).items():
            phases.add_metric([phase], seconds)
        restarts = CounterMetricFamily("xgen_train_restarts", "Attempts after the first, by reason.", labels=["reason"])
        for reason, count in ledger.restarts.items():
            restarts.add_metric([reason], count)
        yield from (phases, restarts)
        # The ledger hears of a step every few seconds only.
        highest = max(ledger.highest_step, self._attempt.last.step if self._attempt.last else 0)
        yield _gauge("highest_step", "Highest step that any attempt has trained.", highest)
        yield _gauge("checkpoint_durable_step", "Step of the newest durable checkpoint; 0: none.", ledger.durable_step)
        if ledger.durable_time:
            name = "checkpoint_durable_timestamp_seconds"
            yield _gauge(name, "When the newest checkpoint became durable.", ledger.durable_time)
        guarded = CounterMetricFamily(
            "xgen_train_guard", "Steps that the guard acted on, by action.", labels=["action"]
        )
        for action in GUARD_ACTIONS:
            guarded.add_metric([action], ledger.guarded.get(action, 0))
        yield guarded
        if ledger.attempts and (stage := ledger.attempts[-1].stage):
            text = "1 for the stage that is trained."
            names = GaugeMetricFamily("xgen_train_stage_info", text, labels=["stage"])
            names.add_metric([stage], 1)
            yield names
        if ledger.attempts:
            name = "attempt_start_timestamp_seconds"
            yield _gauge(name, "When this attempt started.", ledger.attempts[-1].started)
        if ledger.attempts and ledger.attempts[-1].startup:
            text = "How long the parts of this attempt's start took, from rank 0's process start to its first step."
            parts = GaugeMetricFamily("xgen_train_startup_seconds", text, labels=["part"])
            for part, seconds in ledger.attempts[-1].startup.items():
                parts.add_metric([part], seconds)
            yield parts


@dataclass(frozen=True)
class _Step:
    """The last step; replaced as one, so that a scrape never mixes two steps."""

    step: int
    time: float
    loss: float
    grad_norm: float
    lr: float
    tokens: int
    data_wait: float  # seconds of this attempt
    seconds: float
    median_loss: float | None


@dataclass(frozen=True)
class TrainingPlan:
    """What the attempt sets out to do; the callables are asked at a scrape, in the exporter's thread."""

    tokens: int  # of the whole run
    ideal_step_seconds: float | None  # of a step at the peak of its GPUs; None: it has none
    memory: Callable[[], Mapping[str, int]]  # bytes by kind
    mixture: Callable[[], Mapping[str, int]]  # tokens by domain


class _AttemptCollector(Collector):
    """What this attempt has told."""

    def __init__(self) -> None:
        self.plan: TrainingPlan | None = None
        self.last: _Step | None = None
        self.resumed: int | None = None
        self.save_seconds: float | None = None
        self.slowest: tuple[int, float] | None = None  # rank, and its time over the median's
        self.validation: dict[str, float] = {}
        self.extra: dict[str, float] = {}

    def collect(self) -> Iterator[Metric]:
        last = self.last
        if last:
            yield _gauge("step", "Last step that was finished.", last.step)
            yield _gauge("last_step_timestamp_seconds", "When it was finished.", last.time)
            yield _gauge("loss", "Training loss of the last step, mean over all tokens.", last.loss)
            yield _gauge("grad_norm", "Norm of the gradient before clipping.", last.grad_norm)
            yield _gauge("learning_rate", "Learning rate of the last step.", last.lr)
            yield _counter("tokens", "Tokens trained on since step 0, over all ranks.", last.tokens)
            yield _counter("data_wait_seconds", "Time that steps of this attempt waited for data.", last.data_wait)
        elif self.resumed == 0:
            yield _counter("tokens", "Tokens trained on since step 0, over all ranks.", 0)
            yield _counter("data_wait_seconds", "Time that steps of this attempt waited for data.", 0)
        if self.plan:
            yield from self._of_plan(self.plan)
        if last and last.median_loss:
            text = "Loss of the last step, over the median of those before, as the guard sees them."
            yield _gauge("loss_spike_ratio", text, last.loss / last.median_loss)
        if self.resumed is not None:
            yield _gauge("resumed_step", "Step of the checkpoint this attempt began from; 0: none.", self.resumed)
        if self.slowest is not None:
            yield _gauge("slowest_rank", "The rank that took longest for the same work.", self.slowest[0])
            yield _gauge("slowest_rank_ratio", "How long it took, over the median rank.", self.slowest[1])
        if self.validation:
            text = "Loss on held-out text."
            losses = GaugeMetricFamily("xgen_train_validation_loss", text, labels=["domain"])
            for domain, loss in self.validation.items():
                losses.add_metric([domain], loss)
            yield losses
        yield from families(self.extra)
        if self.save_seconds is not None:
            yield _gauge("checkpoint_save_seconds", "How long the last save held up the training.", self.save_seconds)

    def _of_plan(self, plan: TrainingPlan) -> Iterator[Metric]:
        yield _gauge("planned_tokens", "Tokens of all stages.", plan.tokens)
        if self.last and plan.ideal_step_seconds:
            text = "FLOPs of the last step, over those that its GPUs could have done in its time."
            yield _gauge("mfu_ratio", text, plan.ideal_step_seconds / self.last.seconds)
        text = "Most memory that rank 0 has held in this attempt."
        memory = GaugeMetricFamily("xgen_train_memory_bytes", text, labels=["kind"])
        for kind, size in plan.memory().items():
            memory.add_metric([kind], size)
        yield memory
        if self.resumed is not None:  # before that it would be the count of step 0
            text = "Tokens that were read, over all ranks, by the mixture's components."
            mixture = CounterMetricFamily("xgen_train_mixture_tokens", text, labels=["domain"])
            for domain, tokens in plan.mixture().items():
                mixture.add_metric([domain], tokens)
            yield mixture


class RunExporter:
    """Serves the metrics of one attempt until it is closed. The trainer's calls cost microseconds and never raise."""

    def __init__(self, ledger: Ledger, address: str = "127.0.0.1") -> None:
        self._address = address
        self._serving: Serving | None = None
        disable_created_metrics()  # half of all counter series, for nothing that is drawn
        self._registry = CollectorRegistry()
        self._attempt = _AttemptCollector()
        self._registry.register(_LedgerCollector(ledger, self._attempt))
        self._registry.register(self._attempt)
        self._seconds = Histogram(
            "xgen_train_step_seconds", "Wall time of a step.", buckets=_STEP_BUCKETS, registry=self._registry
        )

    def start(self) -> int:
        """Listen on a free port of the address; returns the port. Raises Refused when it is not this node's."""
        try:
            self._serving = Serving(make_wsgi_app(self._registry), self._address, name="exporter")
        except OSError as error:
            raise Refused(
                f"cluster profile: metrics.address: {self._address!r}: {error.strerror}; write an address that every "
                "node has: 127.0.0.1, or 0.0.0.0 where Prometheus runs on another machine"
            ) from None
        return self._serving.port

    def close(self) -> None:
        """Stop answering; the server's thread has ended on return."""
        if self._serving is not None:
            self._serving.close()
            self._serving = None

    def on_step(
        self,
        step: int,
        loss: float,
        grad_norm: float,
        lr: float,
        tokens: int,
        step_seconds: float,
        data_wait_seconds: float,
        median_loss: float | None = None,
    ) -> None:
        """One finished step; `tokens` since step 0 of the run, over all ranks; the seconds are this step's."""
        waited = (self._attempt.last.data_wait if self._attempt.last else 0.0) + data_wait_seconds
        self._attempt.last = _Step(step, time.time(), loss, grad_norm, lr, tokens, waited, step_seconds, median_loss)
        self._seconds.observe(step_seconds)

    def will_train(self, plan: TrainingPlan) -> None:
        self._attempt.plan = plan

    def on_checkpoint(self, step: int, seconds: float, time: float) -> None:
        """A checkpoint is durable; its step and time reach the exporter through the ledger, as an event."""
        del step, time
        self._attempt.save_seconds = seconds

    def on_slowest(self, rank: int, ratio: float) -> None:
        self._attempt.slowest = rank, ratio

    def on_validation(self, losses: Mapping[str, float]) -> None:
        """Held-out loss by domain."""
        self._attempt.validation = dict(losses)

    def on_extra(self, values: Mapping[str, float]) -> None:
        """What its kind of training measures, by the names of `xgen.metrics.extra`; what was told before stays."""
        self._attempt.extra = {**self._attempt.extra, **values}

    def resumed(self, step: int) -> None:
        """The attempt begins from the checkpoint of this step, 0 for a fresh start."""
        self._attempt.resumed = step


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"xgen_train_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"xgen_train_{name}", text, value=value)
