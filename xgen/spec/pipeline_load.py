"""From the file of a pipeline to the checked spec of each of its steps, with the values of other steps in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xgen.spec.base import nearest
from xgen.spec.curate import Curate
from xgen.spec.errors import Problem, SpecError
from xgen.spec.evaluate import Evaluate
from xgen.spec.export import Export
from xgen.spec.layers import Key, apply_override, parse_key, read_layers, read_override
from xgen.spec.load import LoadedJob, load_job, project_root, validate
from xgen.spec.pipeline import SELF, How, Pipeline, fill_in, references
from xgen.spec.regmix import Regmix
from xgen.spec.sft import Preference, Sft
from xgen.spec.trained import Trained

_OWN = ("run", "path")  # what a step knows of itself before its spec is read


@dataclass(frozen=True)
class LoadedPipeline:
    """A pipeline, and where it was read."""

    pipeline: Pipeline
    file: Path
    root: Path


@dataclass(frozen=True)
class LoadedStep:
    """A step with its spec in full."""

    name: str
    loaded: LoadedJob
    run: str  # name of its run
    needs: Mapping[str, How]
    products: tuple[str, ...]  # folders that are there once it has run


def is_pipeline(path: Path) -> bool:
    """Whether a file says that it is a pipeline. Raises SpecError for one that cannot be read."""
    return read_layers(path)[0].get("kind") == "pipeline"


def load_pipeline(path: Path, overrides: Sequence[str] = (), root: Path | None = None) -> LoadedPipeline:
    """Read a pipeline. `overrides` are STEP.KEY=VALUE, for the spec of a step, or KEY=VALUE for the pipeline itself.
    Raises SpecError."""
    raw, origins = read_layers(path)
    for override in overrides:
        _apply(raw, origins, override)
    found = validate(Pipeline, raw, str(path), origins)
    return LoadedPipeline(found, path.resolve(), root or project_root(path.resolve().parent))


def _apply(raw: dict[str, Any], origins: dict[Key, str], override: str) -> None:
    first, dot, _ = override.partition(".")
    steps = raw.get("steps")
    step = steps.get(first) if isinstance(steps, dict) else None
    if dot and isinstance(step, dict):
        text, value = read_override(override)
        key = text.removeprefix(f"{first}.")
        own = step.get("set")
        own = own if isinstance(own, dict) else {}
        own.pop(key, None)
        step["set"] = {**own, key: value}
        return
    key = str(next(iter(parse_key(override.partition("=")[0])), ""))
    if isinstance(steps, dict) and key not in Pipeline.model_fields:
        raise SpecError(
            Problem("--set", override, f"{key!r} is neither a step nor a key of a pipeline; write STEP.KEY=VALUE: "
                    f"{nearest(key, [*steps, *Pipeline.model_fields])}")
        )  # fmt: skip
    apply_override(raw, origins, override)


def resolve(found: LoadedPipeline, run_root: Path, runs: Mapping[str, str]) -> list[LoadedStep]:
    """The spec of each step, in order. `runs` has the name of each step's run, which will lie in `run_root`.

    Raises SpecError with the problems of all steps whose specs can be read.
    """
    pipeline = found.pipeline
    values: dict[str, dict[str, str]] = {}
    steps: list[LoadedStep] = []
    problems: list[Problem] = []
    for name in pipeline.order:
        step, run = pipeline.steps[name], run_root / runs[name]
        own = {"run": run.name, "path": str(run)}
        if any(other not in values for other in step.needs):
            continue  # the problem of that one is told of
        try:
            given = _given(found, name, {**values, SELF: own})
            loaded = _load(found, name, given)
        except SpecError as error:
            problems += error.problems
            continue
        values[name] = {**own, **values_of(loaded, run)}
        products = (str(run), *(v for k, v in values[name].items() if k in ("out", "weights")))
        steps.append(LoadedStep(name, loaded, run.name, step.needs, products))
    if problems:
        raise SpecError(*problems)
    _check_folders(found, steps)
    return steps


def values_of(loaded: LoadedJob, run: Path) -> dict[str, str]:
    """What other steps can refer to, besides `run`, the name of the run, and `path`, its folder."""
    match loaded.job:
        case Curate(out=out):
            return {"out": out}
        case Regmix(out=out):
            return {"out": out, "weights": f"{out}/weights.yaml"}
        case Export(out=str(out)):
            return {"out": out}
        case Export(step=int(step)):
            return {"out": str(run / "export" / f"step-{step}")}
        case Evaluate():
            return {"report": str(run / "evaluation" / "report")}
        case Trained() as job:
            more = {"last_step": str(job.places[-1].last_step)}
            if isinstance(job, Sft | Preference) and job.data.out is not None:
                more["out"] = job.data.out
            return more
    return {}


def _given(found: LoadedPipeline, name: str, values: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The keys that the pipeline sets of a step, without references. Raises SpecError for a value that is none."""
    given = found.pipeline.steps[name].set
    known: dict[tuple[str, str], str] = {}
    for step, value in references(given):
        if value not in values[step]:
            has = ", ".join(values[step])
            said = f"${{{step}.{value}}}: step {step} has no value {value}; it has {has}"
            if step == SELF:
                said = f"${{self.{value}}}: a step knows of itself no more than {', '.join(_OWN)}"
            raise SpecError(Problem(str(found.file), f"steps.{name}.set", said))
        known[step, value] = values[step][value]
    filled: dict[str, Any] = fill_in(given, known)
    return filled


def _load(found: LoadedPipeline, name: str, given: Mapping[str, Any]) -> LoadedJob:
    """The spec of a step; what is wrong with it is told with the name of the step, and where the pipeline set it."""
    path = found.root / found.pipeline.steps[name].spec
    overrides = [f"{key}={json.dumps(value, default=str)}" for key, value in given.items()]  # YAML has dates too
    overrides.append(f"name={found.pipeline.name}-{name}")
    try:
        return load_job(path, overrides, found.root)
    except SpecError as error:
        raise SpecError(*(told_of(found.file, name, problem) for problem in error.problems)) from None


def told_of(file: Path, step: str, problem: Problem) -> Problem:
    """A problem of a step's spec, told of the pipeline."""
    if problem.file == "--set":
        return replace(problem, file=str(file), key=f"steps.{step}.set.{problem.key}")
    return replace(problem, file=f"step {step}: {problem.file}" if problem.file else f"step {step}")


def _check_folders(found: LoadedPipeline, steps: list[LoadedStep]) -> None:
    """Raises SpecError where two steps write the same folder, or one into another's."""
    written = sorted((Path(folder), key, step.name) for step in steps for key, folder in _written(step.loaded))
    around: list[tuple[Path, str]] = []  # each within the one before, and the step that writes it
    for folder, key, step in written:
        while around and not folder.is_relative_to(around[-1][0]):
            around.pop()
        if first := next((other for _, other in around if other != step), None):
            said = f"{folder} is written by step {first} too; write another, e.g. ${{self.path}}/{folder.name}"
            raise SpecError(Problem(str(found.file), f"steps.{step}.set.{key}", said))
        around.append((folder, step))


def _written(loaded: LoadedJob) -> list[tuple[str, str]]:
    """Key and folder of what a step makes outside of its run's directory, or within it by name."""
    match loaded.job:
        case Curate() as job:
            return [("out", job.out), ("work", job.work_folder)]
        case Regmix(out=str(out)) | Export(out=str(out)):
            return [("out", out)]
    return []
