"""What rank 0 of a run exports. Names and units: docs/monitoring.md.

The totals come from the run's ledger, so they go on where the attempt before ended; `run`, `attempt` and `job_id` are
labels of the target (discovery.py), not of each series.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Gauge, Histogram, disable_created_metrics, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from xgen.runs import Ledger

_STEP_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120)  # seconds


class LedgerCollector(Collector):
    """Time by phase, restarts and checkpoints, as the ledger has them at the moment of the scrape."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def collect(self) -> Iterator[Metric]:
        ledger = self._ledger
        phases = CounterMetricFamily(
            "xgen_train_time_seconds", "Wall time of the run by phase; phases sum to wall time.", labels=["phase"]
        )
        for phase, seconds in ledger.totals(time.time()).items():
            phases.add_metric([phase], seconds)
        yield phases
        restarts = CounterMetricFamily("xgen_train_restarts", "Attempts after the first, by reason.", labels=["reason"])
        for reason, count in ledger.restarts.items():
            restarts.add_metric([reason], count)
        yield restarts
        for name, text, value in (
            ("highest_step", "Highest step that any attempt has trained.", ledger.highest_step),
            ("checkpoint_durable_step", "Step of the newest durable checkpoint.", ledger.durable_step),
            ("checkpoint_durable_timestamp_seconds", "When it became durable; 0: never.", ledger.durable_time),
        ):
            yield GaugeMetricFamily(f"xgen_train_{name}", text, value=value)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is wsgiref's
        pass


class RunExporter:
    """Serves the metrics of one attempt until it is closed. Its methods cost microseconds and never raise."""

    def __init__(self, ledger: Ledger, address: str = "127.0.0.1") -> None:
        self._address = address
        self._server: WSGIServer | None = None
        disable_created_metrics()  # half of all counter series, for nothing that we draw
        self._registry = registry = CollectorRegistry()
        registry.register(LedgerCollector(ledger))
        self._step = Gauge("xgen_train_step", "Last step that was finished.", registry=registry)
        self._time = Gauge("xgen_train_last_step_timestamp_seconds", "When it was finished.", registry=registry)
        self._loss = Gauge(
            "xgen_train_loss", "Training loss of the last step, mean over all tokens.", registry=registry
        )
        self._grad_norm = Gauge("xgen_train_grad_norm", "Gradient norm before clipping.", registry=registry)
        self._rate = Gauge("xgen_train_learning_rate", "Learning rate of the last step.", registry=registry)
        self._tokens = _Tokens()
        registry.register(self._tokens)
        self._seconds = Histogram(
            "xgen_train_step_seconds", "Wall time of a step.", buckets=_STEP_BUCKETS, registry=registry
        )
        self._save = Gauge("xgen_train_checkpoint_save_seconds", "How long the last save took.", registry=registry)
        self._resumed = Gauge(
            "xgen_train_resumed_step", "Step of the checkpoint this attempt began from.", registry=registry
        )

    def start(self) -> int:
        """Listen on a free port of the address; returns the port."""
        app = make_wsgi_app(self._registry)
        self._server = make_server(self._address, 0, app, server_class=_Server, handler_class=_Silent)
        threading.Thread(target=self._server.serve_forever, name="exporter", daemon=True).start()
        return self._server.server_port

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def on_step(
        self,
        step: int,
        loss: float,
        grad_norm: float,
        lr: float,
        tokens: int,
        step_seconds: float,
        data_wait_seconds: float,
    ) -> None:
        """One finished step; `tokens` since step 0 of the run, over all ranks."""
        del data_wait_seconds  # the ledger has it, from the progress events
        self._step.set(step)
        self._time.set_to_current_time()
        self._loss.set(loss)
        self._grad_norm.set(grad_norm)
        self._rate.set(lr)
        self._tokens.value = tokens
        self._seconds.observe(step_seconds)

    def on_checkpoint(self, step: int, seconds: float, time: float) -> None:
        """A checkpoint is durable; step and time reach the ledger as an event."""
        del step, time
        self._save.set(seconds)

    def resumed(self, step: int) -> None:
        self._resumed.set(step)


class _Tokens(Collector):
    """A counter that is set: it counts over all attempts of the run."""

    def __init__(self) -> None:
        self.value = 0

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "xgen_train_tokens", "Tokens trained on since step 0, over all ranks.", value=self.value
        )
