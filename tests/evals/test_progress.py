"""What a shard says of itself: how far, how fast, how long yet."""

from __future__ import annotations

import pytest

from xgen.evals.progress import Meter
from xgen.evals.protocol import Item


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def items(*lengths: int) -> list[Item]:
    return [Item("ruler", "vt", length, number) for number, length in enumerate(lengths)]


def meter(done: int, left: list[Item]) -> tuple[Meter, Clock, list[str]]:
    clock, lines = Clock(), list[str]()
    return Meter("step 500: ruler", done, left, clock, lines.append), clock, lines


def test_a_line_every_ten_seconds_says_how_far_and_how_long() -> None:
    left = items(*[4096] * 1280)
    watched, clock, lines = meter(20, left)
    for item in left[:300]:
        clock.now += 0.25
        watched.add(item)
    assert len(lines) == 7
    assert lines[0] == "step 500: ruler 60/1,300 samples, 4.0 a second, about 5m left"
    assert lines[-1] == "step 500: ruler 300/1,300 samples, 4.0 a second, about 4m left"


def test_long_samples_that_come_last_are_counted_by_their_tokens() -> None:
    left = items(*[4096] * 40, *[131072] * 40)
    watched, clock, lines = meter(0, left)
    for item in left[:40]:
        clock.now += 1
        watched.add(item)
    assert lines[-1] == "step 500: ruler 40/80 samples, 1.0 a second, about 21m left"


@pytest.mark.parametrize(("pause", "said"), [(30.0, "2.0 a minute"), (0.01, "100.0 a second")])
def test_a_rate_is_of_a_second_or_of_a_minute(pause: float, said: str) -> None:
    left = items(*[0] * 1100)
    watched, clock, lines = meter(0, left)
    for item in left[:1050]:
        clock.now += pause
        watched.add(item)
    assert f", {said}, " in lines[0]


def test_the_last_line_says_what_this_attempt_did() -> None:
    left = items(4096, 4096)
    watched, clock, lines = meter(18, left)
    for item in left:
        clock.now += 100
        watched.add(item)
    watched.end()
    assert lines == [
        "step 500: ruler 19/20 samples, 0.6 a minute, about 2m left",
        "step 500: ruler 20 samples, 2 of them in 3m",
    ]
