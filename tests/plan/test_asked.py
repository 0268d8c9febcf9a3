"""GPU-hours that a submission asks for."""

from __future__ import annotations

import pytest

from tests.plan.test_numbers import PROFILE, job
from xgen.plan import asked, plan

STAGE = {"tokens": "100k", "seq_len": 256, "global_batch": "1k", "lr": {"peak": 1e-3}}


def test_what_begins_with_a_checkpoint_asks_for_the_steps_that_are_left() -> None:
    training = job(stages=[{"name": "a", **STAGE}, {"name": "b", **STAGE}])  # of 98 steps each
    each = [plan(training, PROFILE, stage).gpu_hours for stage in (0, 1)]
    assert asked(training, PROFILE).gpu_hours == pytest.approx(sum(each))
    assert asked(training, PROFILE, after=49).gpu_hours == pytest.approx(each[0] / 2 + each[1])
    assert asked(training, PROFILE, after=98).gpu_hours == pytest.approx(each[1])
    assert asked(training, PROFILE, after=196).gpu_hours == 0
