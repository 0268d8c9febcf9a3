"""Which metrics PromQL text names."""

from __future__ import annotations

import re

import promql_parser as promql

_VARIABLES = {"$__rate_interval": "5m", "$__interval": "15s", "$__range": "1h", "$run": "tiny-k3f9ab"}


def without_variables(expr: str) -> str:
    for name, value in _VARIABLES.items():
        expr = expr.replace(name, value)
    return expr


def metrics_in(expr: str) -> set[str]:
    """Names of all selectors; raises ValueError when it is no PromQL."""
    found: set[str] = set()

    def visit(node: object) -> bool:
        if isinstance(node, promql.VectorSelector):
            by_label = [m.value for m in node.matchers.matchers if m.name == "__name__"]
            found.update(name for text in by_label or [node.name or ""] for name in text.split("|"))
        return True

    promql.walk(promql.parse(without_variables(expr)), visit)
    return found


def rate_windows(expr: str) -> list[str]:
    """The range of every rate() and increase(), as written."""
    return re.findall(r"\b(?:rate|irate|increase)\([^\[]*\[([^\]]+)\]", expr)
