"""What metrics there are, with their labels: those that are promised, those that rules record, Prometheus' own."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.conftest import ROOT
from tests.monitoring.names import labels_of

_TARGET = frozenset({"job", "instance"})
_RUN_TARGET = _TARGET | {"run", "attempt", "job_id", "user", "partition", "node"}
_PROMETHEUS = {
    "up": _RUN_TARGET,
    "scrape_duration_seconds": _RUN_TARGET,
}


def promised() -> dict[str, frozenset[str]]:
    """Labels by metric, those of the target included, as metrics.txt has them."""
    found = {}
    for line in (ROOT / "tests" / "monitoring" / "metrics.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"(\w+)(?:\{([\w,]+)\})?", line)
        assert match, f"metrics.txt: {line!r}; write name or name{{label,label}}"
        target = _RUN_TARGET if match[1].startswith(("xgen_train_", "xgen_rl_")) else _TARGET
        found[match[1]] = target | set((match[2] or "").split(",")) - {""}
    return found


def rules() -> list[dict[str, Any]]:
    files = sorted((ROOT / "monitoring" / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    # YAML reads a number as one.
    return [rule | {"expr": str(rule["expr"])} for group in groups for rule in group["rules"]]


def known() -> dict[str, frozenset[str]]:
    """Labels of every metric that a query may name."""
    found = promised() | _PROMETHEUS
    for rule in rules():
        if "record" in rule:
            found[rule["record"]] = _labels(rule, found)
    alerts = frozenset({"alertname"}).union(*(_labels(rule, found) for rule in rules() if "alert" in rule))
    return found | {"ALERTS": alerts | {"alertstate"}, "ALERTS_FOR_STATE": alerts}


def _labels(rule: dict[str, Any], known: dict[str, frozenset[str]]) -> frozenset[str]:
    return labels_of(rule["expr"], known).union(rule.get("labels", {}))
