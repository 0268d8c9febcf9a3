"""What `xgen status` says of an evaluation: how far it is, and what the newest checkpoint scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xgen.runs import Ledger, RunDir

_SHOWN = 8  # steps


def evaluation_facts(run: RunDir, ledger: Ledger) -> dict[str, Any] | None:
    """None for another kind of run. Samples are counted of checkpoints that are not whole; `samples` is what each has,
    None where a data set says it. Raises OSError where its records cannot be read."""
    from xgen.spec import Evaluate, SpecError, load_resolved

    try:
        job = load_resolved(run.spec_file)
    except (OSError, SpecError):
        return None
    if not isinstance(job, Evaluate):
        return None
    from xgen.evals.records import gone_of, num_recorded, step_folder, steps_of
    from xgen.evals.report.results import wanted_of

    gone, steps = gone_of(run), steps_of(run)
    whole = [step for step in steps if (step_folder(run, step) / "scores.json").exists()]
    newest = ledger.evaluated
    return {
        "target": job.checkpoints.run or job.checkpoints.hf,
        "scored": whole,
        "begun": {step: num_recorded(step_folder(run, step)) for step in steps if step not in (*whole, *gone)},
        "samples": None if job.harness else sum(wanted_of(job).values()),
        "gone": gone,
        "newest": {"step": newest.step, "scores": dict(newest.scores)} if newest else None,
    }


def evaluation_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Of these facts."""
    done = facts["scored"]
    newest_ones = ", ".join(map(str, done[-_SHOWN:])) if any(done) else "all"
    before = f"{len(done) - _SHOWN} and " if len(done) > _SHOWN else ""
    yield f"scores {facts['target']}, done: {f'{before}{newest_ones}' if done else 'none yet'}"
    of = f" of {facts['samples']:,}" if facts["samples"] else ""
    for step, samples in facts["begun"].items():
        yield f"{_name(step)}: {samples:,}{of} samples"
    for step, why in facts["gone"].items():
        yield f"{_name(step)} is not scored: {why}"
    if newest := facts["newest"]:
        yield f"{_name(newest['step'])}: {', '.join(headline(newest['scores']))}"


def headline(scores: Mapping[str, float]) -> Iterator[str]:
    """A number a suite: means over lengths and tasks, of RULER over lengths; losses by name."""
    by_suite: dict[str, list[float]] = {}
    for key, value in scores.items():
        suite, _, rest = key.partition("/")
        task, _, length = rest.rpartition("/")
        if suite == "perplexity":
            yield f"{value:.3f} nats a token of {task} at {length}"
        elif suite != "ruler" or task == "average":  # that over all lengths is their plain mean
            by_suite.setdefault(suite, []).append(value)
    for suite, values in by_suite.items():
        yield f"{suite} {fmean(values):.1%}"
    if tokens := int(scores.get("ruler/effective_length/0", 0)):
        yield f"effective length {tokens:,}"


def _name(step: int) -> str:
    return f"step {step}" if step else "it"  # a folder has one state
