"""Scores as NVIDIA publishes them: matches of each answer in the output, averages over lengths, effective length."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xgen.evals.ruler.tasks import TASKS

THRESHOLD = 85.6  # percent: Llama2-7B at 4k
_CONTROL = re.compile(r"[\x00-\x1f]")


def string_match_all(prediction: str, outputs: Sequence[str]) -> float:
    """Share of the outputs that the prediction contains, in any case of letters: 0 to 1."""
    return sum(output.lower() in prediction.lower() for output in outputs) / len(outputs)


def string_match_part(prediction: str, outputs: Sequence[str]) -> float:
    """1 when the prediction contains any of the outputs. (lm-eval 0.4 gives the share of them instead.)"""
    return float(any(output.lower() in prediction.lower() for output in outputs))


def score(task: str, prediction: str, outputs: Sequence[str]) -> float:
    """Of one sample, 0 to 1."""
    text = _CONTROL.sub("\n", prediction.strip()).strip()
    return (string_match_part if TASKS[task].kind == "qa" else string_match_all)(text, outputs)


@dataclass(frozen=True)
class Summary:
    """Percent by length over all tasks; their plain mean and those whose weights rise or fall with the length."""

    by_length: Mapping[int, float]
    average: float
    weighted_inc: float
    weighted_dec: float
    effective_length: int | None  # tokens; None: below the threshold at the shortest

    @classmethod
    def of(cls, by_length: Mapping[int, float], threshold: float = THRESHOLD) -> Summary:
        """`by_length` holds percent, at least one."""
        lengths = sorted(by_length)
        scores = [by_length[length] for length in lengths]
        rising = range(1, len(scores) + 1)
        effective = None
        for length in lengths:
            if by_length[length] < threshold:
                break
            effective = length
        return cls(
            {length: by_length[length] for length in lengths},
            sum(scores) / len(scores),
            _weighted(scores, rising),
            _weighted(scores, rising[::-1]),
            effective,
        )


def by_length(scores: Mapping[tuple[str, int], Sequence[float]]) -> dict[int, float]:
    """Percent at each length from sample scores by task and length: every task counts the same.

    Raises ValueError when a task is missing at one of the lengths, since its mean would not be theirs.
    """
    tasks, lengths = {task for task, _ in scores}, sorted({length for _, length in scores})
    missing = [f"{task} at {length}" for task in sorted(tasks) for length in lengths if not scores.get((task, length))]
    if missing:
        raise ValueError(f"no score of {', '.join(missing)}")
    means = {key: sum(values) / len(values) for key, values in scores.items()}
    return {length: 100 * sum(means[task, length] for task in tasks) / len(tasks) for length in lengths}


def _weighted(scores: Sequence[float], weights: Sequence[int]) -> float:
    return sum(weight * value for weight, value in zip(weights, scores, strict=True)) / sum(weights)
