"""What `xgen submit` says where a project has fewer GPU-hours left than a run asks for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from xgen.cli.common import usage

if TYPE_CHECKING:
    from xgen.metrics.fleet.balance import Balance
    from xgen.metrics.fleet.usage import Uses
    from xgen.plan import Asked
    from xgen.spec import LoadedJob, Profile


def check_budget(loaded: LoadedJob, profile: Profile, *, anyway: bool) -> list[str]:
    """Warnings. Leaves with exit code 2 where the project refuses what is over its budget, and `anyway` is not said."""
    name = loaded.job.project or ""
    project = profile.projects.get(name)
    if project is None or project.budget is None:
        return []
    from pathlib import Path

    from xgen.cluster.status import ask_slurm
    from xgen.metrics.fleet.balance import balances
    from xgen.plan import asked

    wanted = asked(loaded.job, profile)
    if not wanted.gpu_hours:
        return []
    (now,), uses = balances(Path(profile.run_root), {name: project}, ask_slurm, time.time())
    assert now.left is not None
    if wanted.gpu_hours <= now.left:
        return []
    said = over(now, wanted, uses)
    if project.budget.over == "refuse" and not anyway:
        usage(f"{loaded.problem('project', said)}; ask for less, or write --over-budget")
    return [said]


def over(now: Balance, wanted: Asked, uses: Uses) -> str:
    """The numbers: what is asked for and how that is known, what is left of how much, and who used it."""
    from xgen.cli.usage import hours
    from xgen.spec.units import format_duration

    assert now.limit is not None and now.left is not None
    how = "by its plan"
    if wanted.by_limit:
        how = "by its time limit" if wanted.by_limit == wanted.gpu_hours else "by its plan and time limits"
    left = f"has {hours(max(0.0, now.left))} left of {hours(now.limit)} in {format_duration(now.per)}"
    who = f" ({', '.join(f'{user} {hours(part)}' for user, part in now.users[:3])}" if now.users else ""
    who += f", {len(now.users) - 3} more)" if len(now.users) > 3 else ")" if who else ""
    used = f"used are {hours(now.used)}{who}"
    missing = uses.error or (f"{len(uses.unreadable)} runs that you may not read" if uses.unreadable else "")
    unknown = f", and what is not known: {missing}" if missing else ""
    asks = f"asks for {hours(wanted.gpu_hours)} GPU-hours {how}"
    return f"{now.project!r} {left}, and this {asks}; {used}{unknown}"
