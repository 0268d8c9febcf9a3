"""Usage in hours of a unit, summed by whatever people ask for, and beside SLURM's accounting of the same jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from xgen.metrics.fleet.usage import Used
from xgen.metrics.slurm.rows import HeldRow

Unit = Literal["GPU-hours", "CPU-hours", "node-hours"]
UNITS: tuple[Unit, ...] = get_args(Unit)
By = Literal["user", "project", "run", "name", "kind", "phase", "lost"]
BY: tuple[By, ...] = get_args(By)
_HOUR = 3600.0
_EARLY = 900.0  # seconds that a prolog may take before a job says that it has started
_HELD: Mapping[Unit, Callable[[Used], int]] = {
    "GPU-hours": lambda one: one.num_gpus,
    "CPU-hours": lambda one: one.num_cpus,
    "node-hours": lambda one: one.num_nodes,
}
_BY_SACCT: Mapping[Unit, Callable[[HeldRow], int]] = {
    "GPU-hours": lambda row: row.gpus,
    "CPU-hours": lambda row: row.cpus,
    "node-hours": lambda row: row.nodes,
}


@dataclass
class Sum:
    """Of all that has the same key, in hours of the unit; `queued` in hours of wall time, in which nothing was held.
    By phase or by loss a row is one phase or one loss: then `hours` is all that is known of it."""

    key: tuple[str, ...]
    runs: set[str] = field(default_factory=set)
    hours: float = 0.0
    queued: float = 0.0
    lost: dict[str, float] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def useful(self) -> float:
        return self.hours - sum(self.lost.values())


def sums(rows: Iterable[Used], by: Sequence[By], unit: Unit) -> list[Sum]:
    """The largest first."""
    found: dict[tuple[str, ...], Sum] = {}
    for one in rows:
        weight = _HELD[unit](one) / _HOUR
        for piece, seconds in _pieces(one, by):
            key = tuple(piece if name in ("phase", "lost") else getattr(one, name) or "-" for name in by)
            mine = found.setdefault(key, Sum(key))
            mine.runs.add(one.run)
            mine.hours += weight * seconds
            if not piece:
                mine.queued += one.use.queued / _HOUR
                _add(mine.lost, one.use.lost.items(), weight)
                _add(mine.phases, _phases(one).items(), weight)
    return sorted(found.values(), key=lambda one: (-one.hours, one.key))


def _phases(one: Used) -> Mapping[str, float]:
    """What has no steps works from its start on."""
    return {"work" if phase == "start" and not one.trains else phase: part for phase, part in one.use.phases.items()}


def _add(to: dict[str, float], parts: Iterable[tuple[str, float]], weight: float) -> None:
    for name, part in parts:
        to[name] = to.get(name, 0.0) + weight * part


def _pieces(one: Used, by: Sequence[By]) -> Iterable[tuple[str, float]]:
    """Phases, or losses and what was useful; else the whole."""
    if "phase" in by:
        return _phases(one).items()
    if "lost" in by:
        return [("useful", one.use.useful), *one.use.lost.items()]
    return [("", one.use.held)]


@dataclass(frozen=True)
class Check:
    """Hours of the same jobs by the events and by sacct; `runs`: those that differ most, with both. `unknown`: hours of
    runs that sacct shows no job of and that are not compared, as those of others where PrivateData hides them."""

    events: float
    sacct: float
    runs: list[tuple[str, float, float]]
    unknown: dict[str, float]

    @property
    def difference(self) -> float:
        """Of sacct, over what the events tell of: 0.01 is a hundredth more."""
        return (self.sacct - self.events) / self.events if self.events else 0.0


def check(rows: Sequence[Used], held: Iterable[HeldRow], unit: Unit, now: float) -> Check:
    """`held`: what sacct says, of other jobs too. A number that SLURM has given twice counts where the times fit."""
    of_job = {one.use.job_id: one.run for one in rows}
    first: dict[str, float] = {}
    for one in rows:
        first[one.use.job_id] = min(one.use.started, first.get(one.use.job_id, one.use.started))
    events, sacct = {one.run: 0.0 for one in rows}, dict[str, float]()
    for one in rows:
        events[one.run] += _HELD[unit](one) * one.use.held / _HOUR
    for row in held:
        run = of_job.get(row.job)
        if run is not None and row.start is not None and row.start > first[row.job] - _EARLY:
            hours = _BY_SACCT[unit](row) * max(0.0, (row.end or now) - row.start) / _HOUR
            sacct[run] = sacct.get(run, 0.0) + hours
    differ = sorted(sacct, key=lambda run: -abs(events[run] - sacct[run]))
    return Check(
        events=sum(events[run] for run in sacct),
        sacct=sum(sacct.values()),
        runs=[(run, events[run], sacct[run]) for run in differ[:3]],
        unknown={run: hours for run, hours in events.items() if hours and run not in sacct},
    )
