"""The record of a pipeline, `pipeline.json` in its run directory, and what each of its runs knows of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.runs import RunDir, write_atomic
from xgen.spec import Command, Job, LoadedJob, Sweep
from xgen.spec.changes import what_is_computed
from xgen.spec.pipeline import How


class StepRecord(BaseModel):
    """A step as it was last submitted, or is about to be."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    run: str  # name of its run, in the same run root
    kind: str
    needs: dict[str, How]
    fingerprint: str  # of its spec, of the code that it names, and of the steps that it needs
    earlier: list[str] = []  # runs of the same step that another has replaced


class Record(BaseModel):
    """What `xgen resume` needs to read the pipeline again, and its steps in order. Written before anything is
    submitted, so that whoever is killed leaves the names of all runs behind."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    file: str  # of the pipeline
    overrides: list[str]
    cluster: str
    runtime: str | None
    steps: dict[str, StepRecord]

    def write(self, run: RunDir) -> None:
        write_atomic(record_file(run), self.model_dump_json(indent=1) + "\n")


class Membership(BaseModel):
    """`step.json` of the run of a step."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    pipeline: str  # name of the pipeline's run
    step: str

    def write(self, run: RunDir) -> None:
        write_atomic(run.path / "step.json", self.model_dump_json() + "\n")


def record_file(run: RunDir) -> Path:
    return run.path / "pipeline.json"


def is_pipeline(run: RunDir) -> bool:
    return record_file(run).is_file()


def read_record(run: RunDir) -> Record | None:
    """None for a run that is no pipeline. Raises OSError when it cannot be read."""
    try:
        return Record.model_validate_json(record_file(run).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def membership(run: RunDir) -> Membership | None:
    """None for a run that is no step. Raises OSError when it cannot be read."""
    try:
        return Membership.model_validate_json((run.path / "step.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def step_run(pipeline: RunDir, record: Record, step: str) -> RunDir:
    return RunDir(pipeline.path.parent / record.steps[step].run)


def each_step(run: RunDir) -> list[RunDir]:
    """The runs of a pipeline's steps; of what is none, the run itself. Raises OSError when it cannot be read."""
    record = read_record(run)
    return [step_run(run, record, step) for step in record.steps] if record else [run]


def fingerprint(loaded: LoadedJob, runs: Mapping[str, str], needs: Mapping[str, str]) -> str:
    """Of all that a step's result follows from. `runs`: names of runs of the pipeline by step, which change when one is
    made anew, and are no change of the spec; `needs`: fingerprints of the steps that it needs.

    What a resume may change (resources, environment) is not in it, nor is xgen itself: of a command, or a sweep
    of one, the files of the checkout that its words name are.
    """
    text = json.dumps(what_is_computed(loaded.job), default=str)
    for step, run in runs.items():
        text = text.replace(run, f"<{step}>")
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(needs):
        digest.update(f"{name} {needs[name]}\n".encode())
    for file in _named_files(loaded):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _named_files(loaded: LoadedJob) -> list[Path]:
    words = [loaded.root / word for word in _words(loaded.job) if word and not word.startswith("-")]
    return [file for file in words if _is_file(file)]


def _words(job: Job) -> list[str]:
    """Of a command; of a sweep of one those of all its points."""
    if isinstance(job, Command):
        return job.command
    if not isinstance(job, Sweep) or job.spec.get("kind") != "command":
        return []
    values = [job.spec.get("command"), *(value for axis in job.over.values() for value in axis.choice or ())]
    values += [value for point in job.points.listed or () for value in point.values()]
    return [str(word) for value in values for word in (value if isinstance(value, list) else [value])]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a word too long for a name
        return False
