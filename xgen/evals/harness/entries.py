"""What a spec asks of the harness: its own tasks, and the columns of the report."""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from xgen.runs import Refused
from xgen.spec.evaluate import Harness


class Entry(BaseModel):
    """A task or a group of lm-eval, with the name of its score. `metric`: one of lm-eval's, with its filter if it has
    several; None: lm-eval's own choice for a group, else exact_match, acc_norm or acc."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    task: str
    shots: int | None
    metric: str | None = None


class _Column(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    shots: int
    metric: str
    source: Literal["v1", "v2"]


def entries_of(harness: Harness) -> tuple[Entry, ...]:
    """In the order in which they are scored. Raises Refused for a task that the report has as well."""
    entries = report() if harness.suite == "report" else ()
    for name in harness.tasks:
        if column := next((entry for entry in entries if name in (entry.task, entry.name)), None):
            raise Refused(
                f"harness.tasks: {name} is in suite: report, as {column.name} with {column.shots} shots; leave it out"
            )
    return (*entries, *(Entry(name=name, task=name, shots=shots) for name, shots in harness.tasks.items()))


def report() -> tuple[Entry, ...]:
    """The columns of `suite: report`."""
    text = files("xgen.evals.harness").joinpath("report.yaml").read_text(encoding="utf-8")
    columns = {name: _Column.model_validate(of) for name, of in yaml.safe_load(text).items()}
    return tuple(Entry(name=name, task=of.task, shots=of.shots, metric=of.metric) for name, of in columns.items())
