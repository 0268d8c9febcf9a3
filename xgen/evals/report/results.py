"""All that a report is made of, read from the files of an evaluate run: at any time, also while it is going on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.evals.checkpoints import Chosen
from xgen.evals.protocol import Item, Record, SuiteName
from xgen.evals.published import Row, rows
from xgen.evals.records import gone_of, read_records, step_folder, steps_of
from xgen.evals.report.words import AVERAGES
from xgen.evals.summary import Summary, summarize
from xgen.runs import RunDir
from xgen.spec import Evaluate


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Evaluated(_Frozen):
    """What is known of one checkpoint. `complete`: no sample of it is to come."""

    step: int
    complete: bool
    done: dict[SuiteName, int]
    summary: Summary


class Results(_Frozen):
    """`results.json`. `wanted`: samples of a checkpoint, at most; of `harness` nothing is known before it is done."""

    run: str
    subject: str
    wanted: dict[SuiteName, int]
    checkpoints: tuple[Evaluated, ...]
    waiting: tuple[int, ...]  # checkpoints that are known to be wanted, and not begun
    gone: dict[int, str]
    sources: dict[SuiteName, tuple[str, ...]]  # texts around what is asked for, with their digests
    published: tuple[Row, ...]

    def name_of(self, step: int) -> str:
        return f"{self.subject}@{step}" if step else self.subject


def collect(run: RunDir, job: Evaluate, published: bool = True) -> Results:
    """Raises OSError where the run cannot be read, StoreError for a model in `published` that is not known."""
    gone = gone_of(run)
    begun = Chosen.read(run)
    found = [one for step in steps_of(run) if step not in gone and (one := evaluated(run, job, step))]
    there = {one.step for one in found} | gone.keys()
    return Results(
        run=run.name,
        subject=job.checkpoints.run or job.checkpoints.hf or "",
        wanted=wanted_of(job),
        checkpoints=tuple(found),
        waiting=tuple(step for step in (begun.steps if begun else ()) if step not in there),
        gone=gone,
        sources=_sources(read_records(step_folder(run, found[-1].step))) if found else {},
        published=tuple(rows(job.published)) if published else (),
    )


def evaluated(run: RunDir, job: Evaluate, step: int) -> Evaluated | None:
    """None for a checkpoint without a sample. Raises OSError."""
    folder = step_folder(run, step)
    known = read_summary(folder)
    summary = known or summarize(read_records(folder), _of_ruler(job))
    done: Counter[SuiteName] = Counter()
    for score in summary.scores:
        if score.task not in AVERAGES:
            done[score.suite] += score.count
    return Evaluated(step=step, complete=known is not None, done=dict(done), summary=summary) if done else None


def read_summary(folder: Path) -> Summary | None:
    """What was written once every sample was scored; None before, and where it is no whole file. Raises OSError."""
    try:
        return Summary.model_validate_json((folder / "scores.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def wanted_of(job: Evaluate) -> dict[SuiteName, int]:
    """Samples of a checkpoint as far as the spec alone tells: a question set, or a folder of documents, may have fewer;
    of `harness` nothing is known."""
    counts: dict[SuiteName, int] = {}
    if job.ruler:
        counts["ruler"] = len(job.ruler.tasks) * len(job.ruler.lengths) * job.ruler.samples
    if job.needles:
        counts["needles"] = len(job.needles.lengths) * job.needles.depths * job.needles.samples
    if job.recall:
        counts["recall"] = len(job.recall.lengths) * job.recall.samples
    if job.perplexity:
        counts["perplexity"] = sum(one.documents for one in job.perplexity.values())
    return counts


def _of_ruler(job: Evaluate) -> Iterator[Item]:
    """So that an average waits for all tasks."""
    if job.ruler:
        for length in job.ruler.lengths:
            for task in job.ruler.tasks:
                yield from (Item("ruler", task, length, number) for number in range(job.ruler.samples))


def _sources(records: list[Record]) -> dict[SuiteName, tuple[str, ...]]:
    found: dict[SuiteName, set[str]] = defaultdict(set)
    for record in records:
        if record.source:
            found[record.suite].add(record.source)
    return {suite: tuple(sorted(names)) for suite, names in found.items()}
