"""Time by phase as Prometheus needs it: counters that never fall and always sum to wall time."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xgen.metrics.phases import PhaseCounters
from xgen.runs import Event, EventName, Ledger


def event(time: float, name: EventName, step: int | None = None, data_wait: float | None = None) -> Event:
    return Event(time=time, run="r", attempt=1, job_id="7", event=name, writer="rank0", step=step, data_wait=data_wait)


def training_ledger(began: float) -> Ledger:
    ledger = Ledger()
    names: tuple[EventName, ...] = ("submitted", "started", "restore_begin", "restore_end")
    for offset, name in enumerate(names):
        ledger.add(event(began + offset, name))
    ledger.add(event(began + 4, "first_step", step=1))
    return ledger


@given(
    st.lists(
        st.tuples(
            st.floats(0.01, 30),  # seconds until it happens
            st.sampled_from(["scrape", "scrape", "progress", "checkpoint_begin", "checkpoint_durable", "stopping"]),
            st.floats(0, 20),  # seconds of waiting for data that a progress event tells of
        ),
        max_size=40,
    )
)
@settings(max_examples=200, deadline=None)
def test_no_phase_ever_falls_and_they_sum_to_wall_time(moments: list[tuple[float, str, float]]) -> None:
    ledger = training_ledger(began=1000.0)
    counters = PhaseCounters(ledger)
    now, waited = 1004.0, 0.0
    before = counters.read(now)
    for step, (pause, what, data_wait) in enumerate(moments, start=2):
        now += pause
        if what != "scrape":
            waited += data_wait
            ledger.add(event(now, what, step=step, data_wait=waited))  # type: ignore[arg-type]
        phases = counters.read(now)
        assert all(phases[phase] >= before[phase] for phase in phases)
        assert sum(phases.values()) == pytest.approx(now - 1000.0)
        before = phases


def test_what_was_told_late_is_made_good_at_the_next_scrapes() -> None:
    ledger = training_ledger(began=1000.0)
    counters = PhaseCounters(ledger)
    assert counters.read(1010.0)["train"] == pytest.approx(6.0)
    ledger.add(event(1010.0, "progress", step=5, data_wait=5.0))  # 5 of these 6 seconds were waiting
    assert counters.read(1010.0)["train"] == pytest.approx(6.0)
    assert counters.read(1020.0) == pytest.approx(ledger.totals(1020.0))


def test_time_between_an_end_and_a_resume_is_in_no_phase() -> None:
    now = time.time()
    ledger = training_ledger(began=now - 1000)
    ledger.add(event(now - 900, "failed"))
    ledger.add(event(now - 10, "queued"))
    ledger.add(event(now - 5, "started"))
    assert sum(PhaseCounters(ledger).read(now).values()) == pytest.approx(100 + 10)


def test_scrapes_are_right_while_another_thread_writes_events() -> None:
    ledger = training_ledger(began=time.time() - 4)
    counters = PhaseCounters(ledger)
    done = threading.Event()

    def write() -> None:
        step = 1
        while not done.is_set():
            step += 1
            ledger.add(event(time.time(), "checkpoint_begin", step=step))
            ledger.add(event(time.time(), "checkpoint_durable", step=step))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(2000):
            now = time.time()
            wall = now - ledger.began
            assert sum(counters.read(now).values()) == pytest.approx(wall, abs=0.05)
    finally:
        done.set()
        writer.join(timeout=10)
