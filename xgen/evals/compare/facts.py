"""What the compared runs are: size, tokens, cost, speed, and the keys of their specs that differ."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from xgen.data.errors import StoreError
from xgen.data.meta import TOKENIZER_FILE, read_meta
from xgen.evals.compare.curves import Curve
from xgen.evals.compare.found import Side
from xgen.evals.compare.losses import final_loss
from xgen.runs import RunDir, read_events, replay
from xgen.runs.history import history
from xgen.spec import Evaluate, Job, Pretrain, Trained
from xgen.spec.changes import changes


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Facts(_Frozen):
    """Of one side; None where nothing is known. `tokens` and `steps` are those up to the step that was named;
    cost and restarts are of the whole run. `hours`: of GPUs."""

    name: str
    kind: str | None
    model: str | None
    parameters: int | None
    vocabulary: str | None
    steps: int | None
    tokens: int | None
    loss: float | None
    tokens_per_second: float | None
    hours: float | None
    ettr: float | None
    restarts: int | None
    evaluated: int | None  # step of the checkpoint that the scores are of
    evaluations: dict[str, str]  # run by suite


class KeyDifference(_Frozen):
    """A key of the spec and its value in each of the runs; None where it is not there."""

    key: str
    values: tuple[Any, ...]


def facts_of(side: Side, curve: Curve | None) -> Facts:
    job = side.job
    hours, ettr, restarts = _cost(side.training, job) if side.training and job else (None, None, None)
    return Facts(
        name=side.name,
        kind=getattr(job, "kind", None),
        model=job.model.name if job else None,
        parameters=job.model.num_parameters if job else None,
        vocabulary=vocabulary(job) if job else None,
        steps=int(curve.steps[-1]) if curve else None,
        tokens=int(curve.tokens[-1]) if curve else None,
        loss=final_loss(curve) if curve else None,
        tokens_per_second=curve.tokens_per_second if curve else None,
        hours=hours,
        ettr=ettr,
        restarts=restarts,
        evaluated=side.step if side.records else None,
        evaluations={suite: one.run.name for suite, one in sorted(side.evaluations.items())},
    )


def vocabulary(job: Trained) -> str:
    """What its tokens are: the tokenizer's checksum where the store is there, or else how many there are."""
    if isinstance(job, Pretrain):
        for folder in job.data.folders.values():
            try:
                found = read_meta(Path(folder)).files.get(TOKENIZER_FILE)
            except (StoreError, OSError):
                continue
            if found:
                return f"{job.model.vocab_size} {found.sha256[:12]}"
    return f"{job.model.vocab_size}"


def same_vocabulary(first: str, other: str) -> bool:
    """Where one is not known by more than its size, that decides."""
    ours, theirs = first.split(), other.split()
    return all(a == b for a, b in zip(ours, theirs, strict=False))


def spec_differences(jobs: Sequence[Job]) -> list[KeyDifference]:
    """Keys whose values are not all the same, by name; those of the name and of how it is computed too."""
    values: dict[str, list[Any]] = {}
    for number, job in enumerate(jobs[1:], start=1):
        after, before = changes(jobs[0], job), changes(job, jobs[0])
        for key in after.keys() | before.keys():
            values.setdefault(key, [before.get(key)] * len(jobs))[number] = after.get(key)
    return [KeyDifference(key=key, values=tuple(values[key])) for key in sorted(values) if key != "name"]


def suite_differences(first: Evaluate, other: Evaluate, suite: str) -> str:
    """Why samples of a suite are others, from the specs of their evaluations."""
    keys = (suite, "tokenizer", "template")
    found = [one for one in spec_differences([first, other]) if one.key.split(".")[0].split("[")[0] in keys]
    said = [f"{one.key} is {_shown(one.values[0])} and {_shown(one.values[1])}" for one in found]
    return (
        ", ".join(said) or "the specs are alike: their tokenizers, their templates or the files that they read are not"
    )


def _shown(value: object) -> str:
    return "not set" if value is None else str(value)


def _cost(run: RunDir, job: Trained) -> tuple[float | None, float | None, int | None]:
    """GPU-hours, effective training time ratio, restarts; None of a run without events."""
    events = read_events(run)
    if not events:
        return None, None, None
    now, ledger = time.time(), replay(events)
    gpus = {name: one.nodes * one.gpus_per_node for name, one in job.jobs}
    first = next(iter(gpus.values()), 0)
    hours = sum(row.held * gpus.get(row.stage, first) for row in history(events, [], now)) / 3600
    return hours or None, ledger.ettr(now), sum(ledger.restarts.values())
