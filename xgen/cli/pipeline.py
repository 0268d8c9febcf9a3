"""What the commands share that take a pipeline: its steps checked as if those before had run, and its graph."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from xgen.runs import RunDir
    from xgen.spec import LoadedJob, Problem, Profile
    from xgen.spec.pipeline import How
    from xgen.spec.pipeline_load import LoadedPipeline, LoadedStep

_DEEPEST = 10  # a graph that has more steps in a row is drawn as a list
_NAMES_A_RUN = ("init.run", "checkpoints.run", "run")


def shows_pipeline(run: RunDir, what: Literal["status", "times", "why"], *, as_json: bool) -> bool:
    """Show this of a run that is a pipeline; whether it is one."""
    from xgen.cluster.pipeline import is_pipeline

    try:
        if not is_pipeline(run):
            return False
    except OSError:  # its state says that it cannot be read
        return False
    from xgen.cli import pipeline_show
    from xgen.cluster.status import ask_slurm

    show = {"status": pipeline_show.show_status, "times": pipeline_show.show_times, "why": pipeline_show.explain}
    show[what](run, ask_slurm([run]), as_json=as_json)
    return True


@contextmanager
def trial(
    found: LoadedPipeline, runs: Mapping[str, str], profile: Profile, done: Collection[str] = ()
) -> Iterator[tuple[Profile, list[LoadedStep]]]:
    """The steps, and a profile whose run root holds the spec of each run of theirs: what a step asks of one before it
    can be answered before that has run. Of those that are `done` it has the run itself, and the runs that others name.

    Raises SpecError.
    """
    from xgen.spec import SpecError, dump
    from xgen.spec.pipeline_load import resolve

    real = Path(profile.run_root).absolute()
    with TemporaryDirectory(prefix="xgen-pipeline-") as folder:
        root = Path(folder) / "runs"
        root.mkdir()
        try:
            steps = resolve(found, root, runs)
        except SpecError as error:
            raise SpecError(*(_in_place(one, str(root), profile.run_root) for one in error.problems)) from None
        own = {step.run: step for step in steps}
        for step in steps:
            if step.name in done:
                (root / step.run).symlink_to(real / step.run)
                continue
            (root / step.run).mkdir()
            (root / step.run / "spec.yaml").write_text(dump(step.loaded.job), encoding="utf-8")
        for name in {name for step in steps for name in _named_runs(step.loaded)} - own.keys():
            if "/" not in name and (real / name).exists():
                (root / name).symlink_to(real / name)
        yield profile.model_copy(update={"run_root": str(root)}), steps


def _named_runs(loaded: LoadedJob) -> Iterator[str]:
    from xgen.spec import Evaluate, Export, Tuned

    match loaded.job:
        case Tuned() as job if job.init.run:
            yield job.init.run
        case Evaluate() as job if job.checkpoints.run:
            yield job.checkpoints.run
        case Export() as job:
            yield job.run


def check_steps(
    found: LoadedPipeline,
    place: Profile,
    steps: Sequence[LoadedStep],
    run_root: str,
    done: Collection[str] = (),
    *,
    stores: bool = True,
) -> list[Problem]:
    """All that is wrong with any step, of what `trial` gives. What is not there yet, and a step before makes, is no
    mistake: the step itself looks when it starts."""
    from xgen.cli.common import check_init, check_mixture
    from xgen.cli.evaluated import check_evaluated
    from xgen.plan import check
    from xgen.spec import SpecError
    from xgen.spec.pipeline_load import told_of

    problems: list[Problem] = []
    root = place.run_root
    later: dict[str, set[str]] = {}
    by_name = {step.name: step for step in steps}

    def ask(step: LoadedStep, question: Callable[[], object]) -> list[Problem]:
        try:
            question()
        except SpecError as error:
            waits = later[step.name] | {Path(text).name for text in later[step.name] if text.startswith(root)}
            return [one for one in error.problems if not any(text in one.message for text in waits)]
        return []

    for step in steps:
        above = [by_name[name] for name in step.needs]
        made = {text for one in above if one.name not in done for text in one.products}
        later[step.name] = made.union(*(later[one.name] for one in above))
        waits = later[step.name] | {step.products[0]}
        wrong = [
            one
            for one in check(step.loaded, place, stores=stores)
            if one.key in _NAMES_A_RUN or not any(text in one.message for text in waits)
        ]
        if stores and not wrong:
            wrong += ask(step, partial(check_mixture, step.loaded.job))
            wrong += ask(step, partial(check_init, step.loaded, place))
            wrong += ask(step, partial(check_evaluated, step.loaded, place))
        problems += [_in_place(told_of(found.file, step.name, one), root, run_root) for one in wrong]
    return problems


def _in_place(problem: Problem, trial_root: str, run_root: str) -> Problem:
    return replace(problem, message=problem.message.replace(trial_root, os.path.abspath(run_root)))  # noqa: PTH100


def graph(needs: Mapping[str, Mapping[str, How]]) -> list[tuple[str, str, str]]:
    """Each step in order, what stands before its name, and what else it waits for. A step stands below the last of
    those that it needs; a graph that is too deep is a list. What follows from another need is not told."""
    depth: dict[str, int] = {}
    parent: dict[str, str | None] = {}
    above: dict[str, set[str]] = {}
    for name, others in needs.items():
        above[name] = set(others).union(*(above[other] for other in others))
        parent[name] = max(others, key=lambda other: depth[other], default=None)
        depth[name] = 1 + max((depth[other] for other in others), default=-1)

    def own(name: str) -> dict[str, How]:
        implied = set[str]().union(*(above[other] for other in needs[name]))
        return {other: how for other, how in needs[name].items() if other not in implied or how == "any"}

    if max(depth.values(), default=0) > _DEEPEST:
        return [(name, "", _after(own(name))) for name in needs]
    children: dict[str | None, list[str]] = {}
    for name, one in parent.items():
        children.setdefault(one, []).append(name)
    found: list[tuple[str, str, str]] = []

    def draw(name: str, lead: str, head: str) -> None:
        others = {other: how for other, how in own(name).items() if other != parent[name] or how == "any"}
        found.append((name, lead + head, _after(others)))
        below = children.get(name, [])
        inner = lead + {"": "", "├ ": "│ ", "└ ": "  "}[head]
        for number, child in enumerate(below):
            draw(child, inner, "└ " if number == len(below) - 1 else "├ ")

    for name in children.get(None, []):
        draw(name, "", "")
    return found


def _after(others: Mapping[str, How]) -> str:
    said = [f"{other}, however it ends" if how == "any" else other for other, how in others.items()]
    return f"after {'; '.join(said)}" if said else ""


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they need to be; one that nobody fills is none."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True) if w).rstrip() for row in rows]
