"""Two trainings against each other: their losses, their losses on held-out text, their speed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from xgen.data.errors import StoreError
from xgen.data.meta import read_meta
from xgen.evals.compare.curves import Curve, Validation, read_validations
from xgen.evals.compare.facts import same_vocabulary, vocabulary
from xgen.evals.compare.found import Side
from xgen.evals.compare.losses import (
    LossDifference,
    at_equal_steps,
    at_equal_tokens,
    final_loss,
    same_batches,
    tokens_until,
)
from xgen.evals.compare.scores import Test, Verdict, verdict_of
from xgen.evals.stats import LEVEL, holm
from xgen.spec import Pretrain, Trained


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class LossTest(_Frozen):
    """Nats a token, over the `window` points that end at `at` steps or tokens."""

    equal: Literal["steps", "tokens", "steps and tokens"]
    at: int
    window: int
    first: float
    other: float
    test: Test
    verdict: Verdict


class DomainDifference(_Frozen):
    """One number each, which no test can judge. `bits`: per byte, where the stores tell the bytes of a token."""

    domain: str
    tokens: int
    first: float
    other: float
    bits: tuple[float, float] | None


class TrainingDifference(_Frozen):
    """`reached_by_other`: tokens after which the other's smoothed loss is where the first's ends, None if it never is;
    `reached_by_first` the other way round. `why_not`: why losses are not compared."""

    losses: tuple[LossTest, ...] = ()
    reached_by_other: int | None = None
    reached_by_first: int | None = None
    validation: tuple[DomainDifference, ...] = ()
    speed: float | None = None  # tokens a second, the other's over the first's
    why_not: str = ""


def training_difference(
    first: Side,
    other: Side,
    ours: Curve | None,
    theirs: Curve | None,
    level: float = LEVEL,
    metrics: Sequence[str] = (),
) -> TrainingDifference | None:
    """None where there are no two trainings, or nothing of them is asked for."""
    if not (ours and theirs and first.job and other.job and first.training and other.training):
        return None
    wants_loss = not metrics or any(fnmatchcase("loss", each) for each in metrics)
    wants_any = wants_loss or any(each.startswith("validation/") for each in metrics)
    if first.training.path == other.training.path or not wants_any:
        return None
    rates = ours.tokens_per_second, theirs.tokens_per_second
    speed = rates[1] / rates[0] if rates[0] and rates[1] else None
    validation = [
        one for one in _validation(first, other) if not metrics or _is_wanted(f"validation/{one.domain}", metrics)
    ]
    why_not = _why_not(first.job, other.job)
    if why_not:
        known = [one for one in validation if one.bits]
        return TrainingDifference(validation=tuple(known), speed=speed, why_not=why_not)
    final = final_loss(ours), final_loss(theirs)
    return TrainingDifference(
        losses=tuple(_losses(ours, theirs, level)) if wants_loss else (),
        reached_by_other=tokens_until(theirs, final[0]) if final[0] is not None else None,
        reached_by_first=tokens_until(ours, final[1]) if final[1] is not None else None,
        validation=tuple(validation),
        speed=speed,
    )


def _is_wanted(key: str, metrics: Sequence[str]) -> bool:
    return any(fnmatchcase(key, each) for each in metrics)


def _why_not(first: Trained, other: Trained) -> str:
    kinds = [getattr(job, "kind", "") for job in (first, other)]
    if kinds[0] != kinds[1]:
        return f"the loss of {kinds[0]} and that of {kinds[1]} are not of the same thing"
    if not same_vocabulary(vocabulary(first), vocabulary(other)):
        return "their vocabularies differ, and so does what a token is: losses a token cannot be compared"
    return ""


def _losses(ours: Curve, theirs: Curve, level: float) -> Iterator[LossTest]:
    by_steps = at_equal_steps(ours, theirs, level)
    found: list[tuple[Literal["steps", "tokens", "steps and tokens"], LossDifference]] = []
    if by_steps:
        found.append(("steps and tokens" if same_batches(ours, theirs) else "steps", by_steps))
    if not (by_steps and same_batches(ours, theirs)) and (by_tokens := at_equal_tokens(ours, theirs, level)):
        found.append(("tokens", by_tokens))
    adjusted = holm([one.difference.p for _, one in found])
    for (equal, one), p in zip(found, adjusted, strict=True):
        of = one.difference
        test = Test(mean=of.mean, low=of.low, high=of.high, p=of.p, adjusted=p, family=len(found))
        yield LossTest(
            equal=equal, at=one.at, window=one.window, first=one.first, other=one.other, test=test,
            verdict=verdict_of(of.mean, p, level, less_is_better=True),
        )  # fmt: skip


def _validation(first: Side, other: Side) -> Iterator[DomainDifference]:
    """After the most tokens at which both were validated, or else after the most steps."""
    assert first.training and other.training
    ours, theirs = (
        [one for one in read_validations(run) if step is None or one.step <= step]
        for run, step in ((first.training, first.until), (other.training, other.until))
    )
    if not (pair := _last_in_common(ours, theirs)):
        return
    sizes = _bytes_per_token(first.job), _bytes_per_token(other.job)
    for domain in (each for each in pair[0].losses if each in pair[1].losses):
        values = pair[0].losses[domain], pair[1].losses[domain]
        bits = None
        if all(domain in of for of in sizes):
            a, b = (value / math.log(2) / of[domain] for value, of in zip(values, sizes, strict=True))
            bits = (a, b)
        yield DomainDifference(domain=domain, tokens=pair[0].tokens, first=values[0], other=values[1], bits=bits)


def _last_in_common(ours: Sequence[Validation], theirs: Sequence[Validation]) -> tuple[Validation, Validation] | None:
    by_tokens, by_step = {one.tokens: one for one in theirs}, {one.step: one for one in theirs}
    pairs = [*((one, by_tokens.get(one.tokens)) for one in reversed(ours))]
    pairs += [(one, by_step.get(one.step)) for one in reversed(ours)]
    return next(((one, found) for one, found in pairs if found), None)


def _bytes_per_token(job: Trained | None) -> Mapping[str, float]:
    """By domain of the held-out text; none where its store is not there."""
    if not (isinstance(job, Pretrain) and job.validation):
        return {}
    try:
        domains = read_meta(Path(job.validation.store)).domains
    except (StoreError, OSError):
        return {}
    return {domain.name: domain.num_bytes / domain.num_tokens for domain in domains if domain.num_tokens}
