"""The dashboards are ones that Grafana takes, name nothing that nobody exports, and can be read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring import generate
from tests.monitoring.conftest import MONITORING
from tests.monitoring.known import known
from tests.monitoring.names import labels_of, rate_windows, variables_in

DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((MONITORING / "dashboards").glob("*.json"))}
REFERENCE = {"type": "prometheus", "uid": "${datasource}"}
KNOWN = known()
# Grafana's own type does not know what its Prometheus data source reads from an annotation.
_PROMETHEUS_ANNOTATION = re.compile(
    r"\.annotations\.list\[\d+\]\.(step|tagKeys|textFormat|titleFormat|useValueForTime)"
)

Json = dict[str, Any]
plugins.register_default_plugins()  # without them the options of panels are any object


@pytest.fixture(params=DASHBOARDS)
def dashboard(request: pytest.FixtureRequest) -> Json:
    content = DASHBOARDS[request.param]
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


def expressions(dashboard: Json) -> list[tuple[str, str]]:
    """(where, PromQL)"""
    panels = [(p["title"], t["expr"]) for p in dashboard["panels"] for t in p["targets"]]
    return panels + [(f"annotation {a['name']}", a["expr"]) for a in dashboard["annotations"]["list"]]


def unknown_keys(dashboard: Json) -> set[str]:
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    return {path for path in set(leaves(dashboard)) - set(leaves(again)) if not _PROMETHEUS_ANNOTATION.fullmatch(path)}


def variables(dashboard: Json) -> dict[str, Json]:
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}


def overridden(panel: Json, key: str) -> dict[str, Any]:
    """The values of a property that is overridden, by the field's name."""
    overrides = panel["fieldConfig"]["overrides"]
    return {o["matcher"]["options"]: p["value"] for o in overrides for p in o["properties"] if p["id"] == key}


def organized(panel: Json) -> Json:
    """What is hidden, ordered and renamed in a table."""
    [options] = [step["options"] for step in panel["transformations"] if step["id"] == "organize"]
    assert isinstance(options, dict)
    return options


def test_the_files_are_what_the_source_says() -> None:
    texts = {path.name: path.read_text() for path in (MONITORING / "dashboards").glob("*.json")}
    assert texts == generate.generated(), "write: python -m monitoring.generate"


def test_grafana_knows_every_key(dashboard: Json) -> None:
    assert not unknown_keys(dashboard)


def test_a_misspelt_key_is_found(dashboard: Json) -> None:
    for place in (
        lambda panel: panel,
        lambda panel: panel["options"],
        lambda panel: panel["fieldConfig"]["defaults"],
    ):
        broken = json.loads(json.dumps(dashboard))
        place(broken["panels"][0])["misspelt"] = 1
        assert len(unknown_keys(broken)) == 1


def test_it_loads_in_grafana_9_to_13(dashboard: Json) -> None:
    assert 36 <= dashboard["schemaVersion"] <= 41
    everywhere = {"stat", "timeseries", "bargauge", "state-timeline", "table", "barchart"}
    newer = {panel["title"] for panel in dashboard["panels"] if panel["type"] not in everywhere}
    assert {p["type"] for p in dashboard["panels"]} <= everywhere | {"xychart"}
    assert not newer or any(panel["title"] == "Side by side" for panel in dashboard["panels"]), (
        "says the same to old ones"
    )


def test_every_query_names_metrics_and_labels_that_exist(dashboard: Json) -> None:
    for where, expr in expressions(dashboard):
        try:
            labels_of(expr, KNOWN)
        except (ValueError, KeyError) as error:
            pytest.fail(f"{where}: {error!r}")


@pytest.mark.parametrize(
    ("expr", "fault"),
    [
        ("max(xgen_run_gpu)", "xgen_run_gpu"),
        ("sum by (usr) (slurm_user_gpus_running)", "the label usr"),
        ('xgen_run_gpus{state="running"}', "the label state"),
        ("xgen_run_gpus * on (run) group_left (kind) xgen_run_state", "the label kind"),
        ("sum by (user) (slurm_user_gpus_running) / on (run) sum by (run) (xgen_run_gpus)", "the label run"),
        ('label_replace(xgen_run_gpus, "node", "$1", "hostname", "(.*)")', "the label hostname"),
        ("rate(xgen_run_gpus)", "expected type"),
    ],
)
def test_a_query_that_cannot_work_is_found(expr: str, fault: str) -> None:
    with pytest.raises((ValueError, KeyError), match=fault):
        labels_of(expr, KNOWN)


def test_what_is_written_of_a_series_is_a_label_of_it(dashboard: Json) -> None:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            labels = labels_of(target["expr"], KNOWN)
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            links = json.dumps(panel["fieldConfig"]["defaults"].get("links", []))
            assert named | set(re.findall(r"__field\.labels\.(\w+)", links)) <= labels, panel["title"]
            assert target["legendFormat"] or target["format"] == "table", panel["title"]


def test_every_column_of_a_table_is_there(dashboard: Json) -> None:
    for panel in dashboard["panels"]:
        if panel["type"] == "table":
            options, (rows, *values) = organized(panel), panel["targets"]
            labels = labels_of(rows["expr"], KNOWN)
            shown = {field for field in options["renameByName"] if not field.startswith("Value")}
            assert shown == labels, f"{panel['title']}: the rows have the labels {sorted(labels)}"
            assert len(options["renameByName"]) == len(shown) + len(values)
            for target in values:  # else its values stand in rows of their own
                assert labels_of(target["expr"], KNOWN) <= labels, target["expr"]
            titles = set(options["renameByName"].values())
            assert panel["options"]["sortBy"][0]["displayName"] in titles
            assert overridden(panel, "noValue").keys() == titles
            assert len(overridden(panel, "unit")) == len(values)


def test_every_variable_is_declared_and_used(dashboard: Json) -> None:
    declared = variables(dashboard)
    queries = [v["query"]["query"] for v in declared.values() if v["type"] == "query"]
    assert all(query.startswith("label_values(") for query in queries)
    used = set().union(*(variables_in(expr) for _, expr in expressions(dashboard)), *map(variables_in, queries))
    assert used == declared.keys() - {"datasource"}
    for where, expr in expressions(dashboard):
        for name in variables_in(expr):
            several = declared[name]["multi"] or declared[name]["includeAll"]
            assert not several or re.search(rf'=~"\${name}"', expr), f"{where}: ${name} may be several; write =~"
            assert not several or not re.search(rf'[^~]"\${name}"', expr), where


def test_every_query_of_a_variable_names_what_exists(dashboard: Json) -> None:
    for variable in variables(dashboard).values():
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert match and match[2] in labels_of(match[1], KNOWN)


def test_links_lead_to_dashboards_that_know_their_variables(dashboard: Json) -> None:
    uids = {other["uid"]: other for other in DASHBOARDS.values()}
    *own, others = dashboard["links"]
    assert others["type"] == "dashboards" and others["tags"] == dashboard["tags"] == ["xgen"]
    assert all(link["keepTime"] for link in dashboard["links"])
    inner = [link for p in dashboard["panels"] for links in overridden(p, "links").values() for link in links]
    inner += [link for p in dashboard["panels"] for link in p["fieldConfig"]["defaults"].get("links", [])]
    assert all(link["url"].endswith("&${__url_time_range}") for link in inner)
    for link in own + inner:
        match = re.match(r"/d/([\w-]+)\?", link["url"])
        assert match and match[1] in uids, link["url"]
        assert "datasource" in set(re.findall(r"var-(\w+)=", link["url"])) <= variables(uids[match[1]]).keys()


@pytest.mark.parametrize(("name", "to"), [("fleet", "run"), ("fleet", "nodes"), ("run", "nodes"), ("nodes", "run")])
def test_who_sees_a_fault_gets_to_its_place(name: str, to: str) -> None:
    assert f"/d/xgen-{to}?" in json.dumps(DASHBOARDS[name])


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


def test_no_panel_has_grafanas_thresholds_by_default_nor_is_green_without_data(dashboard: Json) -> None:
    """Without explicit steps a number turns red above 80; an absent value takes the first step's colour."""
    for panel in dashboard["panels"]:
        own = panel["fieldConfig"]["defaults"]["thresholds"]
        for thresholds in (own, *overridden(panel, "thresholds").values()):
            steps = thresholds["steps"]
            values = [step["value"] for step in steps]
            assert values[0] is None and values[1:] == sorted(values[1:]), panel["title"]
            assert values[1:] != [80], panel["title"]
            assert steps[0]["color"] != "green", panel["title"]


def test_the_data_source_is_a_variable_everywhere(dashboard: Json) -> None:
    holders = [*dashboard["panels"], *dashboard["annotations"]["list"]]
    holders += [target for panel in dashboard["panels"] for target in panel["targets"]]
    holders += [variable for variable in variables(dashboard).values() if variable["type"] == "query"]
    assert variables(dashboard)["datasource"]["type"] == "datasource"
    assert all(holder["datasource"] == REFERENCE for holder in holders)


def test_rates_follow_the_scrape_interval_and_sums_the_time_range(dashboard: Json) -> None:
    for where, expr in expressions(dashboard):
        assert set(rate_windows(expr)) <= {"$__rate_interval", "$__range"}, where
        assert "$__range" not in rate_windows(expr.replace("increase(", "")), f"{where}: rate over the range"


def test_what_is_gone_is_no_number_any_more() -> None:
    """Of a range Grafana shows the last value that there was, however old; a run, whose attempts end, wants that."""
    for name in DASHBOARDS.keys() - {"run"}:
        numbers = [panel for panel in DASHBOARDS[name]["panels"] if panel["type"] in ("stat", "bargauge")]
        assert all(target["instant"] for panel in numbers for target in panel["targets"]), name


def test_all_queries_of_a_run_follow_it() -> None:
    for where, expr in expressions(DASHBOARDS["run"]):
        assert 'run="$run"' in expr, where
