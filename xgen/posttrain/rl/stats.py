"""What is measured of the answers of a step, by names of `xgen.metrics.extra`. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from xgen.posttrain.rl.answers import Answer, Group
from xgen.posttrain.rl.desk import Effort, Spent


def of_answers(groups: Sequence[Group], step: int) -> dict[str, float]:
    """Rewards and passes by source, over the answers that have a verdict; lengths and ages over all."""
    answers = [answer for group in groups for answer in group.answers]
    if not answers:
        return {}
    found: dict[str, float] = {}
    by_source: dict[str, list[Answer]] = defaultdict(list)
    for group in groups:
        by_source[group.source] += group.answers
    for source, own in by_source.items():
        rewards = [answer.judged.reward for answer in own if answer.judged.reward is not None]
        passed = [answer.judged.passed for answer in own if answer.judged.passed is not None]
        if rewards:
            found[f"rl_reward/{source}"] = _mean(rewards)
            found[f"rl_pass_rate/{source}"] = _mean(passed)
    found["rl_response_tokens"] = _mean([len(answer.tokens) for answer in answers])
    found["rl_truncated_ratio"] = _mean([answer.truncated for answer in answers])
    found["rl_staleness_steps"] = max(step - 1 - group.oldest for group in groups)
    found["rl_groups_that_teach_ratio"] = _mean([group.teaches for group in groups])
    return found


def of_failures(failures: Mapping[str, int]) -> dict[str, float]:
    return {f"rl_verifier_failures/{name}": float(count) for name, count in failures.items()}


def of_efforts(before: Sequence[Effort], after: Sequence[Effort]) -> dict[str, float]:
    """What all ranks did between two moments: tokens generated over the time of the rank that took longest, and the
    mean time of a verdict."""
    pairs = list(zip(before, after, strict=True))
    seconds = max(new.seconds - old.seconds for old, new in pairs)
    tokens = sum(new.tokens - old.tokens for old, new in pairs)
    found = {"rl_generated_tokens_per_second": tokens / seconds} if seconds > 0 else {}
    for kind in sorted({kind for effort in after for kind in effort.verdicts}):
        spent = [_less(new.verdicts.get(kind), old.verdicts.get(kind)) for old, new in pairs]
        if count := sum(own.count for own in spent):
            found[f"rl_verifier_seconds/{kind}"] = sum(own.seconds for own in spent) / count
    return found


def _less(new: Spent | None, old: Spent | None) -> Spent:
    new, old = new or Spent(0, 0.0), old or Spent(0, 0.0)
    return Spent(new.count - old.count, new.seconds - old.seconds)


def _mean(values: Sequence[float | int | bool | None]) -> float:
    return sum(value or 0 for value in values) / len(values)
