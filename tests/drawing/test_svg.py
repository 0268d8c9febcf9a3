"""Scales and axes."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from xgen.drawing.svg import linear_ticks, log_ticks


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12))
@example(7205759404.21875, 1e-06)
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    high = low + span
    ticks = linear_ticks(low, high)
    assert len(ticks) <= 12
    assert all(low - span * 1e-6 <= tick <= high + span * 1e-6 for tick in ticks)


@given(st.floats(0.1, 1e12), st.floats(1.5, 1e12))
def test_ticks_of_logarithms_are_few_and_inside(low: float, factor: float) -> None:
    ticks = log_ticks(low, low * factor)
    assert len(ticks) <= 12 and all(low * 0.99 <= tick <= low * factor * 1.01 for tick in ticks)
