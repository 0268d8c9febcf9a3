"""The dashboard is one that Grafana takes, and names nothing that nobody exports."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families

from tests.monitoring.conftest import MONITORING
from tests.monitoring.names import metrics_in, rate_windows
from xgen.metrics import RunExporter
from xgen.runs import PHASES, Event, Ledger

DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))
# Grafana's own type does not know what its Prometheus data source reads from an annotation.
_PROMETHEUS_ANNOTATION = re.compile(
    r"\.annotations\.list\[\d+\]\.(step|tagKeys|textFormat|titleFormat|useValueForTime)"
)

Json = dict[str, Any]


@pytest.fixture(params=DASHBOARDS, ids=lambda path: path.stem)
def dashboard(request: pytest.FixtureRequest) -> Json:
    content = json.loads(request.param.read_text())
    assert isinstance(content, dict)
    return content


def leaves(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{index}]")
    else:
        yield path


@pytest.fixture(scope="module")
def exported() -> set[str]:
    """Names of what an exporter that has seen everything serves."""
    ledger = Ledger()
    for time, name in enumerate(("submitted", "started", "first_step", "checkpoint_begin", "checkpoint_durable")):
        record = {"time": time + 1, "run": "r", "attempt": 1, "job_id": "7", "event": name, "writer": "w", "step": 1}
        ledger.add(Event.model_validate(record | {"stage": "broad"}))
    exporter = RunExporter(ledger)
    port = exporter.start()
    try:
        exporter.resumed(0)
        exporter.on_step(1, 2.5, 1.0, 3e-4, 1000, 0.3, 0.1)
        exporter.on_checkpoint(1, 0.5, 5.0)
        exporter.on_validation({"web": 2.0})
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            return {sample.name for family in families for sample in family.samples}
    finally:
        exporter.close()


def rules() -> list[Json]:
    content = yaml.safe_load((MONITORING / "rules" / "runs.yml").read_text())
    return [rule for group in content["groups"] for rule in group["rules"]]


def expressions(dashboard: Json) -> list[tuple[str, str]]:
    """(where, PromQL)"""
    panels = [(p["title"], t["expr"]) for p in dashboard["panels"] for t in p["targets"]]
    return panels + [(f"annotation {a['name']}", a["expr"]) for a in dashboard["annotations"]["list"]]


def test_every_metric_that_a_panel_or_a_rule_names_is_exported(dashboard: Json, exported: set[str]) -> None:
    known = exported | {rule["record"] for rule in rules() if "record" in rule} | {"up"}
    named = expressions(dashboard) + [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    missing = {(where, metric) for where, expr in named for metric in metrics_in(expr) - known}
    assert not missing


def test_every_exported_metric_is_documented(exported: set[str]) -> None:
    docs = (MONITORING.parent / "docs" / "monitoring.md").read_text()
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported}
    assert not {name for name in families if f"`{name}" not in docs}


def test_grafana_knows_every_key(dashboard: Json) -> None:
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    lost = set(leaves(dashboard)) - set(leaves(again))
    assert not {path for path in lost if not _PROMETHEUS_ANNOTATION.fullmatch(path)}


def test_it_loads_in_grafana_9_to_13(dashboard: Json) -> None:
    assert 36 <= dashboard["schemaVersion"] <= 41
    assert {p["type"] for p in dashboard["panels"]} <= {"stat", "timeseries", "bargauge", "state-timeline"}


def test_panels_have_ids_titles_and_places_of_their_own(dashboard: Json) -> None:
    panels = dashboard["panels"]
    assert len({p["id"] for p in panels}) == len({p["title"] for p in panels}) == len(panels)
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


def test_every_panel_explains_itself(dashboard: Json) -> None:
    for panel in dashboard["panels"]:
        defaults = panel["fieldConfig"]["defaults"]
        assert len(panel["description"]) > 20, panel["title"]
        assert defaults["unit"], panel["title"]
        assert defaults["noValue"], panel["title"]
        assert all(t["legendFormat"] for t in panel["targets"]), panel["title"]


def test_no_panel_has_grafanas_thresholds_by_default(dashboard: Json) -> None:
    """Without explicit steps a number turns red above 80."""
    for panel in dashboard["panels"]:
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert steps and steps[0]["value"] is None, panel["title"]
        assert [s["value"] for s in steps[1:]] != [80], panel["title"]


def test_the_data_source_is_a_variable_everywhere(dashboard: Json) -> None:
    reference = {"type": "prometheus", "uid": "${datasource}"}
    variables = {v["name"]: v for v in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["run"]["query"]["query"].startswith("label_values(")
    holders = [*dashboard["panels"], *dashboard["annotations"]["list"], variables["run"]]
    holders += [target for panel in dashboard["panels"] for target in panel["targets"]]
    assert all(holder["datasource"] == reference for holder in holders)


def test_rates_follow_the_scrape_interval_and_all_queries_follow_the_run(dashboard: Json) -> None:
    for where, expr in expressions(dashboard):
        assert set(rate_windows(expr)) <= {"$__rate_interval"}, where
        assert 'run="$run"' in expr, where


@pytest.mark.parametrize("title", ["Now", "Where the time went"])
def test_every_phase_has_a_colour_of_its_own(dashboard: Json, title: str) -> None:
    [panel] = [panel for panel in dashboard["panels"] if panel["title"] == title]
    colors = {
        override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
        for override in panel["fieldConfig"]["overrides"]
    }
    assert set(PHASES) <= colors.keys()
    assert len({colors[phase] for phase in PHASES}) == len(PHASES)
