"""What the points of a sweep have come to, and which of them go on: a point is a shard, and its numbers are its files.

A point is judged by itself, at its own milestones, by the records that the others have left at theirs: no process
watches over a sweep. A record is written once, before anything is done about it, so a point that is preempted in
between knows its verdict when it starts again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xgen.runs.events import read_events
from xgen.runs.rundir import RunDir, write_atomic, write_once

_END = 1 << 16  # bytes


@dataclass(frozen=True)
class Rule:
    """At each step of `at` a point goes on when it is among the best part `keep` of those that have come so far."""

    metric: str
    highest: bool  # is the best
    at: tuple[int, ...]
    keep: float
    least: int


@dataclass(frozen=True)
class Verdict:
    """Of one point at one step: its place among those that had come so far, from 1, and whether it goes on."""

    step: int
    value: float
    place: int
    of: int
    kept: bool

    def why(self, metric: str) -> str:
        return f"at step {self.step}: {metric} {self.value:.4g} is number {self.place} of {self.of}"


def judge(rule: Rule, step: int, value: float, others: Sequence[float]) -> Verdict:
    """What is not finite is the worst."""
    rank = _rank(rule.highest)
    place, of = 1 + sum(rank(one) < rank(value) for one in others), 1 + len(others)
    return Verdict(step, value, place, of, of < rule.least or place <= max(1, math.ceil(rule.keep * of)))


def _rank(highest: bool) -> Any:
    return lambda value: math.inf if not math.isfinite(value) else -value if highest else value


def pass_milestone(run: RunDir, rule: Rule, step: int, value: float) -> Verdict:
    """Record the value of a shard at a step, and judge it by those of the others. Raises OSError."""
    folder = _milestone(run, step)
    folder.mkdir(exist_ok=True)
    others = [one["value"] for file in folder.iterdir() if file.name.isdecimal() and (one := _read(file))]
    verdict = judge(rule, step, value, [math.nan if one is None else one for one in others])
    text = json.dumps({**vars(verdict), "value": value if math.isfinite(value) else None})
    write_once(folder / run.name, text + "\n")
    return read_verdict(run, step) or verdict


def read_verdict(run: RunDir, step: int) -> Verdict | None:
    """Of a shard at a step; None before it has come there."""
    found = _read(_milestone(run, step) / run.name)
    return (
        None if found is None else Verdict(**{**found, "value": math.nan if found["value"] is None else found["value"]})
    )


def ended_by(run: RunDir, rule: Rule) -> Verdict | None:
    """The verdict that ends a shard early; None for one that goes on."""
    verdicts = (read_verdict(run, step) for step in rule.at)
    return next((one for one in verdicts if one and not one.kept), None)


def _milestone(run: RunDir, step: int) -> Path:
    return run.path.parent / f".at-{step}"


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def select(values: Sequence[tuple[int, float]], at: str | int, highest: bool) -> tuple[int, float] | None:
    """Step and value: the `last`, the `best`, or the last up to a step that has been reached; None where there is
    none."""
    if not values or at == "last":
        return values[-1] if values else None
    if at == "best":
        rank = _rank(highest)
        return min(values, key=lambda one: rank(one[1]))
    before = [one for one in values if one[0] <= int(at)]
    return before[-1] if before and values[-1][0] >= int(at) else None


def tell_why_ended(run: RunDir, why: str) -> None:
    """A point that is finished before its work is says why."""
    write_atomic(run.path / "stopped.json", json.dumps({"why": why}) + "\n")


def why_ended(run: RunDir) -> str:
    """'' for one that came to its end."""
    return str((_read(run.path / "stopped.json") or {}).get("why", ""))


def read_values(run: RunDir, metric: str, *, newest: bool = False) -> list[tuple[int, float]]:
    """Steps and values of a metric, in order; of a step that was done twice the last counts. What has no steps has
    one value, at step 0. `newest`: only the end of long files is read. Raises OSError."""
    if "/" in metric:
        scored = ((event.step or 0, (event.scores or {}).get(metric)) for event in read_events(run))
        return sorted({step: score for step, score in scored if score is not None}.items())
    name, _, part = metric.partition(".")
    if name == "validation":
        lines = _lines(run.metrics_dir / "validation.jsonl", newest)
        return _in_order((line, _of_domains(line, part)) for line in lines)
    if found := _in_order((line, _of_step(line, metric)) for line in _lines(run.metrics_dir / "steps.jsonl", newest)):
        return found
    value = _at(_read(run.path / "result.json"), metric.split("."))
    return [] if value is None else [(0, value)]


def _in_order(found: Iterator[tuple[dict[str, Any], float | None]]) -> list[tuple[int, float]]:
    by_step = {line["step"]: value for line, value in found if value is not None and isinstance(line.get("step"), int)}
    return sorted(by_step.items())


def _lines(path: Path, newest: bool) -> Iterator[dict[str, Any]]:
    """Whole lines, maybe only the last ones; none where there is no file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        if newest:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _END))  # the line that this cuts is torn
        for line in file:
            try:
                one = json.loads(line)
            except ValueError:
                continue  # torn, or being written
            if isinstance(one, dict):
                yield one


def _of_step(line: dict[str, Any], metric: str) -> float | None:
    for holder in (line, line.get("extra")):
        if isinstance(holder, dict) and metric in holder:
            return math.nan if holder[metric] is None else _number(holder[metric])
    return None


def _of_domains(line: dict[str, Any], domain: str) -> float | None:
    """Of one domain, or the mean over all of them."""
    domains = line.get("domains")
    if not isinstance(domains, dict) or not domains:
        return None
    losses = [_at(domains, [name, "loss"]) for name in ([domain] if domain else domains)]
    known = [loss for loss in losses if loss is not None]
    return sum(known) / len(known) if len(known) == len(losses) else None


def _at(value: Any, keys: Sequence[str]) -> float | None:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return _number(value)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
