"""What metrics there are, with their labels: those that are promised, those that rules record, Prometheus' own."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.conftest import ROOT
from tests.monitoring.names import labels_of

_TARGET = frozenset({"job", "instance"})
_RUN_TARGET = _TARGET | {"run", "attempt", "job_id", "user", "partition", "node"}
# Of an alert every label of its expression; these are those that a dashboard shows.
_ALERT = frozenset({"alertname", "severity", "run", "node", "partition", "collector"})
_PROMETHEUS = {
    "up": _RUN_TARGET,
    "scrape_duration_seconds": _RUN_TARGET,
    "ALERTS": _ALERT | {"alertstate"},
    "ALERTS_FOR_STATE": _ALERT,
}


def promised() -> dict[str, frozenset[str]]:
    """Labels by metric, those of the target included, as metrics.txt has them."""
    found = {}
    for line in (ROOT / "tests" / "monitoring" / "metrics.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"(\w+)(?:\{([\w,]+)\})?", line)
        assert match, f"metrics.txt: {line!r}; write name or name{{label,label}}"
        target = _RUN_TARGET if match[1].startswith("xgen_train_") else _TARGET
        found[match[1]] = target | set((match[2] or "").split(",")) - {""}
    return found


def rules() -> list[dict[str, Any]]:
    files = sorted((ROOT / "monitoring" / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def known() -> dict[str, frozenset[str]]:
    """Labels of every metric that a query may name."""
    found = promised() | _PROMETHEUS
    for rule in rules():
        if "record" in rule:
            found[rule["record"]] = labels_of(rule["expr"], found) | rule.get("labels", {}).keys()
    return found
