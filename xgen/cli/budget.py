"""What `xgen submit` says where a project has fewer GPU-hours or bytes left than a run asks for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xgen.cli.common import usage

if TYPE_CHECKING:
    from xgen.metrics.fleet.balance import Balance
    from xgen.metrics.fleet.space import Held
    from xgen.metrics.fleet.usage import Uses
    from xgen.plan import Asked
    from xgen.spec import LoadedJob, Profile, Project


def check_budget(loaded: Sequence[LoadedJob], profile: Profile, *, anyway: bool, after: int = 0) -> list[str]:
    """Warnings, on what is submitted together. Leaves with exit code 2 where a project refuses what is over its budget
    or quota, and `anyway` is not said. `after`: the step of the checkpoint that it begins with."""
    notes = []
    for name in dict.fromkeys(one.job.project or "" for one in loaded):
        if project := profile.projects.get(name):
            its = [one for one in loaded if one.job.project == name]
            notes += _check_hours(its, profile, project, anyway, after) + _check_space(its, profile, project, anyway)
    return notes


def _check_hours(
    loaded: Sequence[LoadedJob], profile: Profile, project: Project, anyway: bool, after: int
) -> list[str]:
    if project.budget is None:
        return []
    from pathlib import Path

    from xgen.cluster.status import ask_slurm
    from xgen.metrics.fleet.balance import balances
    from xgen.plan import Asked, asked

    each = [asked(one.job, profile, after) for one in loaded]
    wanted = Asked(sum(one.gpu_hours for one in each), sum(one.by_limit for one in each))
    if not wanted.gpu_hours:
        return []
    name = loaded[0].job.project or ""
    (now,), uses = balances(Path(profile.run_root), {name: project}, ask_slurm, time.time())
    assert now.left is not None
    if wanted.gpu_hours <= now.left:
        return []
    said = over(now, wanted, uses)
    if project.budget.over == "refuse" and not anyway:
        usage(f"{loaded[0].problem('project', said)}; ask for less, or write --over-budget")
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
    used = f"used are {hours(now.used)}{_who([(user, hours(part)) for user, part in now.users])}"
    missing = uses.error or (f"{len(uses.unreadable)} runs that you may not read" if uses.unreadable else "")
    unknown = f", and what is not known: {missing}" if missing else ""
    asks = f"asks for {hours(wanted.gpu_hours)} GPU-hours {how}"
    return f"{now.project!r} {left}, and this {asks}; {used}{unknown}"


def _check_space(loaded: Sequence[LoadedJob], profile: Profile, project: Project, anyway: bool) -> list[str]:
    if project.quota is None:
        return []
    from pathlib import Path

    from xgen.cli.doctor_needs import needs_of
    from xgen.cluster.status import ask_slurm
    from xgen.metrics.fleet.space import held, held_by

    name, root = loaded[0].job.project or "", Path(profile.run_root)
    # Of a run the most that a stage takes: those of the next one replace them.
    wanted = sum(max(need.checkpoint_bytes for need in needs_of(one, profile)) for one in loaded)
    spaces = held_by(root, [name], ask_slurm)
    now = held(name, project.quota, spaces.users[name])
    if now.used + wanted <= now.limit:
        return []
    said = over_quota(now, wanted, len(spaces.unreadable))
    if project.quota.over == "refuse" and not anyway:
        usage(f"{loaded[0].problem('project', said)}; remove what has ended by xgen runs clean, or write --over-budget")
    return [said]


def over_quota(now: Held, wanted: int, num_unreadable: int) -> str:
    """The numbers: what is held of how much and by whom, and what the checkpoints of this run take."""
    from xgen.drawing.wording import many
    from xgen.spec.units import format_bytes

    who = _who([(user, format_bytes(part)) for user, part in now.users])
    takes = f"the checkpoints of this take {format_bytes(wanted)}" if wanted else "this adds to it"
    unknown = f"; not known: {many(num_unreadable, 'run')} that you may not read" if num_unreadable else ""
    return f"{now.project!r} holds {format_bytes(now.used)} of {format_bytes(now.limit)}{who}, and {takes}{unknown}"


def _who(parts: list[tuple[str, str]]) -> str:
    """In brackets: the first three, who have most."""
    more = f", {len(parts) - 3} more" if len(parts) > 3 else ""
    return f" ({', '.join(f'{user} {part}' for user, part in parts[:3])}{more})" if parts else ""
