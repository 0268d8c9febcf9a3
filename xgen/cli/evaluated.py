"""What `xgen submit` asks of the run that an evaluation scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xgen.runs import RunDir
    from xgen.spec import Checkpoints, Evaluate, LoadedJob, Profile


def check_evaluated(loaded: LoadedJob, profile: Profile) -> None:
    """Raises SpecError where no checkpoint is there and nothing says to wait, one that is named is not there, the
    tokenizer has more tokens than the model, texts are none, or harness or report would refuse a name in the end."""
    from xgen.data.errors import StoreError
    from xgen.runs import Refused
    from xgen.spec import Evaluate, SpecError

    job = loaded.job
    if not isinstance(job, Evaluate):
        return
    from xgen.evals.harness import HarnessSuite
    from xgen.evals.published import rows

    if problems := [loaded.problem(key, said) for key, path in job.reads.items() if (said := _unreadable(key, path))]:
        raise SpecError(*problems)
    try:
        rows(job.published)
        if job.harness:
            HarnessSuite(job.harness, Path())
        if job.checkpoints.run is not None:
            # An absolute path stays what it is.
            _check_run(job, Path(profile.run_root) / job.checkpoints.run)
    except (Refused, StoreError) as error:
        key, _, said = str(error).partition(": ")
        raise SpecError(loaded.problem(key, said)) from None


def _unreadable(key: str, path: str) -> str:
    """What texts are to come from, and holds none: what a shard would say once it has a node."""
    from xgen.data.errors import StoreError
    from xgen.data.units import check_files
    from xgen.evals.ruler.haystack import text_files

    try:
        if key.startswith("perplexity."):
            check_files(path)
        elif key.endswith(".haystack"):
            text_files(Path(path))
    except StoreError as error:
        return f"{error.place} {error.what}; {error.fix}"
    return ""


def _check_run(job: Evaluate, folder: Path) -> None:
    """Raises Refused."""
    from xgen.runs import Refused, RunDir
    from xgen.train.export_tokenizer import read_tokenizer
    from xgen.train.source import job_of

    run = RunDir(folder)
    if said := _not_there(run, job.checkpoints):
        raise Refused(said)
    read_tokenizer(job_of(run, "checkpoints.run"), Path(job.tokenizer) if job.tokenizer else None)


def _not_there(run: RunDir, wanted: Checkpoints) -> str:
    """`KEY: what and the fix`; '' where there is something to score. What is followed may come, but not what was
    deleted."""
    complete = run.checkpoint_steps()
    newest = max(complete, default=-1)
    known = ", ".join(map(str, complete[-12:]))
    missing = (step for step in wanted.steps if step not in complete and not (wanted.follow and step > newest))
    if (step := next(missing, None)) is not None:
        if complete and (step < newest or run.ended_file.exists()):
            return f"checkpoints.steps: {run.name} has no complete checkpoint of step {step}; write one of {known}"
        return f"checkpoints.steps: {run.name} has not come to step {step}; wait for it, or write follow: true"
    if wanted.follow or any(map(wanted.takes, complete)):
        return ""
    if complete:
        return f"checkpoints.every: {run.name} has no complete checkpoint of these; it has {known}"
    return (
        f"checkpoints.run: {run.name} has no complete checkpoint; wait, or write {{every: 1, follow: true}} beside it"
    )
