"""The runs that are compared: a training with what evaluations have found of it, or an evaluation with its training."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from xgen.evals.protocol import Record, SuiteName
from xgen.evals.records import read_records, step_folder, steps_of
from xgen.evals.report.results import read_summary
from xgen.runs import RUN_NAME, Refused, RunDir
from xgen.spec import Evaluate, SpecError, Trained, load_resolved


@dataclass(frozen=True)
class Evaluation:
    """An evaluate run, and its spec."""

    run: RunDir
    job: Evaluate


@dataclass(frozen=True)
class Side:
    """One of those that are compared. `records` are of the checkpoint of `step`, by suite those of the newest
    evaluation that has some; `evaluations` says which. `until`: the step that a person named, where it ends for us."""

    name: str
    training: RunDir | None
    job: Trained | None
    step: int | None
    until: int | None = None
    records: tuple[Record, ...] = ()
    evaluations: dict[SuiteName, Evaluation] = field(default_factory=dict)
    all_evaluations: tuple[Evaluation, ...] = ()

    @property
    def num_running(self) -> int:
        """Evaluations of it that have not scored every sample yet."""
        assert self.step is not None
        runs = {one.run.path: one.run for one in self.evaluations.values()}
        return sum(read_summary(step_folder(run, self.step)) is None for run in runs.values())


@dataclass
class Scan:
    """`found`: evaluations by the name of the run that they score, the oldest first. `unreadable`: runs of others."""

    found: dict[str, list[Evaluation]]
    unreadable: int = 0


def find_sides(wanted: Iterable[tuple[RunDir, int | None]]) -> tuple[list[Side], int]:
    """A side for each run and step; without a step its newest that was evaluated. Also how many runs beside them
    could not be read. Raises Refused, OSError, SpecError."""
    runs = [(run, step, load_resolved(run.spec_file)) for run, step in wanted]
    trainings = [run for run, _, job in runs if isinstance(job, Trained)]
    scans = {root: scan(root, {run.name for run in trainings}) for root in {run.path.parent for run in trainings}}
    sides = []
    for run, step, job in runs:
        if isinstance(job, Evaluate):
            sides.append(_of_evaluation(run, job, step))
        elif isinstance(job, Trained):
            sides.append(_of_training(run, job, step, scans[run.path.parent].found.get(run.name, [])))
        else:
            raise Refused(f"{run.name} is a run of kind {job.kind}; write runs that train or evaluate")
    return _told_apart(sides), sum(each.unreadable for each in scans.values())


def _told_apart(sides: list[Side]) -> list[Side]:
    """Two evaluations of one training have its name: what tells them apart is theirs. Raises Refused."""
    names = [side.name for side in sides]
    apart = [
        replace(
            side, name=f"{side.name} by {' and '.join(sorted({one.run.name for one in side.evaluations.values()}))}"
        )
        if names.count(side.name) > 1 and side.evaluations
        else side
        for side in sides
    ]
    if twice := next((side.name for at, side in enumerate(apart) if side.name in [one.name for one in apart[:at]]), ""):
        raise Refused(f"{twice} is named twice; nothing differs from itself")
    return apart


def scan(run_root: Path, names: Collection[str]) -> Scan:
    """Evaluations of the runs of these names. Of all other runs one call to the file system is made."""
    result, times = Scan({}), dict[Path, int]()
    wanted = [name.encode() for name in names]
    if not wanted:
        return result
    with os.scandir(run_root) as entries:
        found = [RunDir(run_root / entry.name) for entry in entries if RUN_NAME.match(entry.name)]
    for run in found:
        try:
            if not run.evaluation_dir.is_dir():
                continue
            times[run.path], text = run.spec_file.stat().st_mtime_ns, run.spec_file.read_bytes()
            job = load_resolved(run.spec_file) if any(name in text for name in wanted) else None
        except PermissionError:
            result.unreadable += 1
            continue
        except (FileNotFoundError, NotADirectoryError, SpecError):  # it was deleted, or is none of this version
            continue
        if isinstance(job, Evaluate) and job.checkpoints.run and (name := Path(job.checkpoints.run).name) in names:
            result.found.setdefault(name, []).append(Evaluation(run, job))
    for evaluations in result.found.values():
        evaluations.sort(key=lambda one: (times[one.run.path], one.run.name))
    return result


def _of_evaluation(run: RunDir, job: Evaluate, step: int | None) -> Side:
    training = RunDir(run.path.parent / job.checkpoints.run) if job.checkpoints.run else None
    trained = None
    if training:
        try:
            loaded = load_resolved(training.spec_file)
            trained = loaded if isinstance(loaded, Trained) else None
        except (OSError, SpecError):  # it was deleted, or is somebody else's: the scores are there all the same
            pass
    subject = training.name if training else job.checkpoints.hf or ""
    side = _with_records(subject, training if trained else None, trained, step, [Evaluation(run, job)])
    if not side.records:
        known = ", ".join(map(str, steps_of(run)))
        fix = f"its checkpoints are {known}" if known else f"xgen status {run.name} says how far it is"
        raise Refused(f"{run.name} has no scores{_at(step)}; {fix}")
    return side


def _of_training(run: RunDir, job: Trained, step: int | None, evaluations: list[Evaluation]) -> Side:
    return _with_records(run.name, run, job, step, evaluations)


def _with_records(
    name: str, training: RunDir | None, job: Trained | None, step: int | None, evaluations: list[Evaluation]
) -> Side:
    steps = {at for one in evaluations for at in steps_of(one.run) if _has_records(one.run, at)}
    chosen = step if step is not None else _newest(evaluations, steps)
    records: list[Record] = []
    of: dict[SuiteName, Evaluation] = {}
    for one in reversed(evaluations):
        if chosen not in steps:
            break
        found = read_records(step_folder(one.run, chosen))
        new = {record.suite for record in found} - of.keys()
        records += [record for record in found if record.suite in new]
        of |= dict.fromkeys(new, one)
    said = name if step is None else f"{name}@{step}"
    return Side(said, training, job, chosen, step, tuple(records), of, tuple(evaluations))


def _newest(evaluations: list[Evaluation], steps: set[int]) -> int | None:
    """The newest that some evaluation has scored whole, or else the newest."""
    whole = {at for one in evaluations for at in steps if read_summary(step_folder(one.run, at))}
    return max(whole or steps, default=None)


def _has_records(run: RunDir, step: int) -> bool:
    return any(file.stat().st_size for file in step_folder(run, step).glob("*.jsonl"))


def _at(step: int | None) -> str:
    return "" if step is None else f" of step {step}"
