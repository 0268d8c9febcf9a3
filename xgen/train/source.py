"""Another run as a source of weights: what it trained, and which of its checkpoints are complete. No torch."""

from __future__ import annotations

from xgen.runs import Refused, RunDir
from xgen.spec import Trained, load_resolved
from xgen.train.ckpt_admin import Checkpoint, survey


def run_beside(run: RunDir, name: str) -> RunDir:
    """The run of that name beside this one; an absolute path stays what it is."""
    return RunDir(run.path.parent / name)


def job_of(run: RunDir, key: str = "run") -> Trained:
    """What it trains; `key` is where the spec names the run. Raises Refused."""
    if not run.spec_file.is_file():
        raise Refused(f"{key}: {run.path} is no run directory, it has no {run.spec_file.name}; write the name of a run")
    job = load_resolved(run.spec_file)
    if not isinstance(job, Trained):
        raise Refused(f"{key}: {run.name} is of the kind {job.kind}; write the name of a run that trains")
    return job


def complete_ones(run: RunDir, step: int | None, key: str = "run") -> list[Checkpoint]:
    """The complete checkpoints of a run, the newest first; of a step that alone. Raises Refused where there is none."""
    complete = [checkpoint for checkpoint in reversed(survey(run)) if checkpoint.counts]
    if not complete:
        raise Refused(f"{key}: {run.name} has no complete checkpoint; wait for its first one")
    if step is None:
        return complete
    if found := [checkpoint for checkpoint in complete if checkpoint.step == step]:
        return found
    known = ", ".join(str(checkpoint.step) for checkpoint in reversed(complete[:12]))
    at = key.removesuffix("run") + "step"
    raise Refused(f"{at}: {run.name} has no complete checkpoint of step {step}; write one of {known}")
