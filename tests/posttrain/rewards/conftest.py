"""Verifiers with small limits, and tasks in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from xgen.posttrain.rewards import Task, Verdict, Verifiers
from xgen.spec.rewards import Reward, Verification

LIMITS = {"seconds": 2.0, "memory": "512MB", "processes": 4, "file_size": "1MB", "output": "64KB"}
Judge = Callable[..., Verdict]


def task(said: str, *rewards: Reward, num_tokens: int = 10, **record: Any) -> Task:
    return Task("source", rewards, "the prompt", said, num_tokens, record)


def limited(workers: int = 2, **limits: Any) -> Verifiers:
    return Verifiers(Verification.model_validate({"workers": workers, "limits": LIMITS | limits}))


@pytest.fixture(scope="package")
def verifiers() -> Iterator[Verifiers]:
    with limited() as made:
        yield made


@pytest.fixture
def judge(verifiers: Verifiers) -> Judge:
    def one(said: str, *rewards: Reward, **given: Any) -> Verdict:
        return verifiers.judge([task(said, *rewards, **given)])[0]

    return one
