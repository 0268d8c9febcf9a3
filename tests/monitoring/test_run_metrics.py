"""What a trainer exports is what is promised, what is documented, and what panels and rules name."""

from __future__ import annotations

import re
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.monitoring.conftest import MONITORING
from tests.monitoring.known import promised, rules
from tests.monitoring.names import metrics_in
from tests.monitoring.test_dashboards import DASHBOARDS, expressions
from xgen.metrics import RunExporter, TrainingPlan
from xgen.metrics.extra import EXTRAS
from xgen.runs import PHASES, Event, Ledger


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Names and labels of what an exporter that has seen everything serves."""
    ledger = Ledger()
    for time, name in enumerate(("submitted", "started", "first_step", "checkpoint_begin", "checkpoint_durable")):
        record = {"time": time + 1, "run": "r", "attempt": 1, "job_id": "7", "event": name, "writer": "w", "step": 1}
        ledger.add(Event.model_validate(record | {"stage": "broad"}))
    exporter = RunExporter(ledger)
    port = exporter.start()
    try:
        exporter.resumed(0)
        exporter.will_train(TrainingPlan(50_000, 0.1, lambda: {"rss": 1}, lambda: {"web": 1000}))
        exporter.on_step(1, 2.5, 1.0, 3e-4, 1000, 0.3, 0.1, 2.4)
        exporter.on_checkpoint(1, 0.5, 5.0)
        exporter.on_slowest(3, 1.4)
        exporter.on_validation({"web": 2.0})
        exporter.on_extra({"/".join((name, *extra.labels)): 1.0 for name, extra in EXTRAS.items()})
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            return {sample.name: set(sample.labels) for family in families for sample in family.samples}
    finally:
        exporter.close()


def test_every_metric_of_a_trainer_that_a_panel_or_a_rule_names_is_exported(exported: dict[str, set[str]]) -> None:
    named = [pair for dashboard in DASHBOARDS.values() for pair in expressions(dashboard)]
    named += [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    names = {
        (where, metric)
        for where, expr in named
        for metric in metrics_in(expr)
        if metric.startswith(("xgen_train_", "xgen_rl_"))
    }
    assert not {(where, metric) for where, metric in names if metric not in exported}


def test_what_is_exported_is_what_is_promised(exported: dict[str, set[str]]) -> None:
    for name, labels in exported.items():
        assert name in promised(), f"write {name} in tests/monitoring/metrics.txt"
        assert labels <= promised()[name], name


def test_every_exported_metric_is_documented(exported: dict[str, set[str]]) -> None:
    docs = (MONITORING.parent / "docs" / "monitoring.md").read_text()
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported}
    assert not {name for name in families if f"`{name}" not in docs}


@pytest.mark.parametrize(
    ("name", "title"),
    [("run", "Now"), ("run", "Where the time went"), ("compare", "Where the time went"), ("fleet", "What the GPUs do")],
)
def test_every_phase_has_a_colour_of_its_own(name: str, title: str) -> None:
    [panel] = [panel for panel in DASHBOARDS[name]["panels"] if panel["title"] == title]
    colors = {
        override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
        for override in panel["fieldConfig"]["overrides"]
    }
    assert set(PHASES) <= colors.keys()
    assert len({colors[phase] for phase in PHASES}) == len(PHASES)
