"""Which metrics and labels PromQL text names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import promql_parser as promql

# Those that need a value of their own kind; any other variable stands in a matcher.
_VARIABLES = {"__rate_interval": "5m", "__interval": "15s", "__range": "1h", "run": "tiny-k3f9ab"}
Known = Mapping[str, frozenset[str]]  # labels by the metric's name


def without_variables(expr: str) -> str:
    return re.sub(r"\$\{?([a-z_]\w*)\}?", lambda match: _VARIABLES.get(match[1], "value"), expr)


def variables_in(text: str) -> set[str]:
    return {name for name in re.findall(r"\$\{?([a-z]\w*)", text) if not name.startswith("__")}


def metrics_in(expr: str) -> set[str]:
    """Names of all selectors; raises ValueError when it is no PromQL."""
    found: set[str] = set()

    def visit(node: object) -> bool:
        if isinstance(node, promql.VectorSelector):
            found.update(_names(node))
        return True

    promql.walk(promql.parse(without_variables(expr)), visit)
    return found


def rate_windows(expr: str) -> list[str]:
    """The range of every rate() and increase(), as written."""
    return re.findall(r"\b(?:rate|irate|increase)\([^\[]*\[([^\]]+)\]", expr)


def labels_of(expr: str, known: Known) -> frozenset[str]:
    """Labels that the result can have.

    Raises ValueError for a label that is matched, grouped by, joined on or copied where no series has it, and
    KeyError for a metric that is not known.
    """
    return _labels(promql.parse(without_variables(expr)), known)


def _labels(node: object, known: Known) -> frozenset[str]:
    if isinstance(node, promql.VectorSelector):
        labels = frozenset[str]().union(*(known[name] for name in _names(node)))
        return _need(labels | {"__name__"}, [m.name for m in node.matchers.matchers], node)
    if isinstance(node, promql.MatrixSelector):
        return _labels(node.vector_selector, known)
    if isinstance(node, promql.ParenExpr | promql.SubqueryExpr | promql.UnaryExpr):
        return _labels(node.expr, known)
    if isinstance(node, promql.AggregateExpr):
        labels, modifier = _labels(node.expr, known), node.modifier
        grouped = modifier.labels if modifier else []
        _need(labels, grouped, node)
        if str(node.op) in ("topk", "bottomk"):
            return labels
        without = modifier and modifier.type == promql.AggModifierType.Without
        return labels - set(grouped) if without else frozenset(grouped)
    if isinstance(node, promql.Call):
        return _labels_of_call(node, known)
    if isinstance(node, promql.BinaryExpr):
        return _labels_of_pair(node, known)
    return frozenset()  # numbers and strings


def _labels_of_call(node: promql.Call, known: Known) -> frozenset[str]:
    labels = frozenset[str]().union(*(_labels(argument, known) for argument in node.args))
    if node.func.name == "label_replace":
        _, target, _, source, _ = (getattr(argument, "val", "") for argument in node.args)
        return _need(labels, [source] if source else [], node) | {target}
    if node.func.name == "histogram_quantile":
        return labels - {"le"}
    if node.func.name == "last_over_time":
        return labels
    return frozenset() if node.func.name == "scalar" else labels - {"__name__"}


def _labels_of_pair(node: promql.BinaryExpr, known: Known) -> frozenset[str]:
    left, right, modifier = _labels(node.lhs, known), _labels(node.rhs, known), node.modifier
    matching = modifier.matching if modifier else None
    on = matching.labels if matching and matching.type == promql.LabelModifierType.Include else None
    for side in (left, right):
        _need(side, on or [], node)
    if str(node.op) == "or":
        return left | right
    if str(node.op) in ("and", "unless"):
        return left
    if str(node.op) not in ("==", "!=", "<", ">", "<=", ">="):
        left, right = left - {"__name__"}, right - {"__name__"}
    copied = (modifier.group_labels if modifier else None) or []
    if modifier and modifier.card == promql.VectorMatchCardinality.OneToMany:
        return right | (_need(left, copied, node) & set(copied))
    if modifier and modifier.card == promql.VectorMatchCardinality.ManyToOne:
        return left | (_need(right, copied, node) & set(copied))
    return frozenset(on) if on else left or right


def _need(labels: frozenset[str], wanted: list[str], node: promql.Expr) -> frozenset[str]:
    if missing := set(wanted) - labels:
        raise ValueError(f"no series has the label {', '.join(sorted(missing))}: {node.prettify()}")
    return labels


def _names(node: promql.VectorSelector) -> list[str]:
    by_label = [m.value for m in node.matchers.matchers if m.name == "__name__"]
    return [name for text in by_label or [node.name or ""] for name in text.split("|")]
