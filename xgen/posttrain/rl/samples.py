"""`samples/step-N.jsonl` of the run directory: answers that are kept whole, to be read. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from xgen.posttrain.rl.answers import Answer, Group
from xgen.runs import RunDir, write_atomic

_MOST_GROUPS = 32  # of a step: enough to read, and no disk full of them
_FILE = re.compile(r"step-(\d+)\.jsonl")


class SampledAnswer(BaseModel):
    """`reward` is None where a verifier failed, `advantage` where the answer did not train."""

    model_config = ConfigDict(frozen=True)

    text: str
    tokens: int
    finish: str
    reward: float | None
    passed: bool | None
    parts: dict[str, float | None]
    failures: dict[str, str]
    details: dict[str, str] = {}
    advantage: float | None
    versions: tuple[tuple[int, int], ...]  # of the weights, with tokens sampled from each


class SampledGroup(BaseModel):
    """One line: a prompt and all answers to it."""

    model_config = ConfigDict(frozen=True)

    step: int
    number: int
    source: str
    prompt: str
    answers: tuple[SampledAnswer, ...]


def write_samples(
    run: RunDir,
    step: int,
    groups: Sequence[Group],
    advantages: NDArray[np.float32],
    prompt_text: Callable[[int], str],
    text: Callable[[NDArray[np.int32]], str],
) -> None:
    """The first groups of a step. A full disk costs the samples, not the training."""
    folder = run.path / "samples"
    lines = [
        SampledGroup(
            step=step,
            number=group.number,
            source=group.source,
            prompt=prompt_text(group.number),
            answers=tuple(_sampled(answer, float(own), text) for answer, own in zip(group.answers, of, strict=True)),
        ).model_dump_json()
        for group, of in zip(groups[:_MOST_GROUPS], advantages, strict=False)
    ]
    try:
        folder.mkdir(exist_ok=True)
        write_atomic(folder / f"step-{step}.jsonl", "".join(f"{line}\n" for line in lines))
    except OSError as error:
        print(f"cannot keep samples of step {step}: {error}", flush=True)


def _sampled(answer: Answer, advantage: float, text: Callable[[NDArray[np.int32]], str]) -> SampledAnswer:
    judged = answer.judged
    return SampledAnswer(
        text=text(answer.tokens),
        tokens=len(answer.tokens),
        finish=answer.finish,
        reward=judged.reward,
        passed=judged.passed,
        parts=dict(judged.parts),
        failures=dict(judged.failures),
        details=dict(judged.details),
        advantage=None if math.isnan(advantage) else advantage,
        versions=answer.versions,
    )


def sampled_steps(run: RunDir) -> list[int]:
    """Steps of which answers were kept, ascending."""
    names = (_FILE.fullmatch(path.name) for path in (run.path / "samples").glob("step-*.jsonl"))
    return sorted(int(name[1]) for name in names if name)


def read_samples(run: RunDir, step: int) -> Iterator[SampledGroup]:
    """Raises FileNotFoundError, and ValidationError for a line that is no such."""
    for line in (run.path / "samples" / f"step-{step}.jsonl").read_bytes().splitlines():  # text has more ends of lines
        yield SampledGroup.model_validate_json(line)
