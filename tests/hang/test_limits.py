"""How long nothing may move: what the spec says, and what the steps have shown."""

from __future__ import annotations

import math

import pytest

from xgen.hang.limits import Limits, Pace
from xgen.spec.hang import Hang


def pace(limit: str = "auto") -> Pace:
    hang = Hang.model_validate({"limit": limit})
    return Pace(Limits(hang.seconds, hang.learns))


@pytest.mark.parametrize(
    ("steps", "limit"),
    [
        ([], 300),
        ([0.5] * 20, 300),  # never less than five minutes
        ([20.0] * 20, 400),  # twenty steps
        ([60.0] * 20, 540),  # a collective would give up after ten minutes
        ([300.0] * 3, 900),  # but steps that take so long are no hang
        ([1.0] * 50 + [200.0], 600),  # once it waited for a disk
    ],
)
def test_auto_follows_the_steps(steps: list[float], limit: float) -> None:
    own = pace()
    for seconds in steps:
        own.add("train", seconds, 1)
    assert own.limit("train") == limit


def test_a_limit_of_the_spec_does_not_follow_the_steps_but_those_of_other_phases_grow() -> None:
    own = pace("10m")
    own.add("train", 3600, 1)
    own.add("validation", 1200, 1)
    assert (own.limit("train"), own.limit("validation"), own.limit("checkpoint")) == (600, 3600, 3600)


def test_several_signs_between_two_looks_are_as_many_intervals() -> None:
    own = pace()
    own.add("train", 1.0, 50)
    assert own.median("train") == 0.02


def test_never_is_no_limit_in_any_phase() -> None:
    own = pace("never")
    assert {own.limit(phase) for phase in ("start", "train", "command", "work")} == {math.inf}
