"""What a reward asks of a worker; what it costs nothing to know is known here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xgen.posttrain.rewards.task import Task
from xgen.posttrain.rewards.verify.reply import Reply
from xgen.spec.rewards import Code, Exact, Format, Function, LengthPenalty, Math, Reward, RewardModel

_ENCODE = json.JSONEncoder(default=str).encode  # made once: `json.dumps` makes one for every call


@dataclass(frozen=True)
class Job:
    """For a worker of this profile. Equal keys, equal replies."""

    profile: str
    body: bytes
    key: bytes


def job_of(reward: Reward, task: Task, seconds: float) -> Job | Reply:
    """A reply where no worker is needed, or where the record lacks what the reward needs."""
    if isinstance(reward, LengthPenalty):
        return Reply(length_penalty(task.num_tokens, reward.free, reward.most))
    if isinstance(reward, Format):
        return _job("pattern", kind="format", pattern=reward.pattern, answer=task.answer)
    if isinstance(reward, RewardModel):
        place = {"url": reward.url, "name": reward.name, "seconds": seconds}
        return _job("model", **place, prompt=task.prompt, answer=task.answer)
    if isinstance(reward, Function):
        told = {"prompt": task.prompt, "answer": task.answer, "record": task.record}
        return _job("function", function=reward.function, **told)
    if isinstance(reward, Code):
        tests = task.record.get("tests")
        if not _are_tests(tests):
            return _lacks("tests", "assert statements, or [{input: …, output: …}]")
        point = task.record.get("entry_point")
        if not isinstance(point, str | None):
            return _lacks("entry_point", "the name of a function, or none")
        return _job("code", answer=task.answer, tests=tests, all=reward.all, entry_point=point)
    reference = task.record.get("answer")
    if isinstance(reference, bool) or not isinstance(reference, str | int | float) or reference == "":
        return _lacks("answer", "a text or a number")
    if isinstance(reward, Math):
        return _job("math", answer=task.answer, reference=str(reference))
    return _exact(reward, task.answer, str(reference))


def _exact(reward: Exact, answer: str, reference: str) -> Job | Reply:
    if reward.extract is None:
        return Reply(float(answer.strip() == reference.strip()))
    return _job("pattern", kind="exact", pattern=reward.extract, answer=answer, reference=reference)


def length_penalty(num_tokens: int, free: int, most: int) -> float:
    """DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13): 0 up to `free`, -1 from `most` on."""
    return -min(max((num_tokens - free) / (most - free), 0.0), 1.0)


def _are_tests(tests: Any) -> bool:
    if not isinstance(tests, Sequence) or isinstance(tests, str) or not tests:
        return False
    return all(isinstance(test, str) for test in tests) or all(
        isinstance(test, Mapping) and isinstance(test.get("input"), str) and isinstance(test.get("output"), str)
        for test in tests
    )


def _lacks(key: str, wanted: str) -> Reply:
    return Reply(None, "error", detail=f"the record has no usable {key!r}; write {wanted}")


def _job(profile: str, **body: Any) -> Job:
    data = _ENCODE(body).encode()
    return Job(profile, data, hashlib.blake2b(data, digest_size=16, person=profile.encode()).digest())
