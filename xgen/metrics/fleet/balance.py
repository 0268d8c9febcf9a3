"""What a project has used of its GPU-hours, and who: from the same rows as `xgen usage`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xgen.cluster.status import QueueView
from xgen.metrics.fleet.sums import sums
from xgen.metrics.fleet.usage import Uses, uses_since
from xgen.runs import RunDir
from xgen.spec import Project


@dataclass(frozen=True)
class Balance:
    """In GPU-hours, of the `per` seconds up to now. `limit` is None where there is none."""

    project: str
    limit: float | None
    per: int
    used: float
    users: list[tuple[str, float]]  # who used most first

    @property
    def left(self) -> float | None:
        return None if self.limit is None else self.limit - self.used


_PER = 30 * 86400  # of a project without a budget


def balances(
    run_root: Path, projects: dict[str, Project], ask: Callable[[list[RunDir]], QueueView], now: float
) -> tuple[list[Balance], Uses]:
    """Of each project; and the newest answer on usage, for what could not be counted."""
    found, answers = [], dict[int, Uses]()
    for name, project in projects.items():
        per = project.budget.per if project.budget else _PER
        if per not in answers:
            answers[per] = uses_since(run_root, ask, now - per, now)
        found.append(balance(name, project, answers[per]))
    return found, next(reversed(answers.values()), Uses([], [], ""))


def balance(name: str, project: Project, uses: Uses) -> Balance:
    """Pure. `uses`: of the project's window."""
    groups = sums((one for one in uses.rows if one.project == name), ("user",), "GPU-hours")
    budget = project.budget
    return Balance(
        project=name,
        limit=budget.gpu_hours if budget else None,
        per=budget.per if budget else _PER,
        used=sum(one.hours for one in groups),
        users=[(one.key[0], one.hours) for one in groups if one.hours],
    )
