"""Events: one JSON object a line, one file a writer, and a reader that survives crashes and newer writers."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from xgen.runs import Event, EventReader, EventWriter, Ledger, RunDir, read_events, replay

_NUMBERS = count()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "demo-abc234")
    made.create()
    return made


def line(time: float, event: str, writer: str = "rank0", **facts: object) -> str:
    record = {"time": time, "run": "demo-abc234", "attempt": 1, "job_id": "7", "event": event, "writer": writer}
    return json.dumps(record | facts) + "\n"


def test_an_event_is_one_line_without_what_it_does_not_say(run: RunDir) -> None:
    before = time.time()
    written = EventWriter(run, "rank0", 2, "41").write("progress", step=7, tokens=7168, durable=True)
    (text,) = (run.events_dir / "rank0.jsonl").read_text().splitlines()
    assert before <= written.time <= time.time()
    assert json.loads(text) == {
        "time": written.time, "run": "demo-abc234", "attempt": 2, "job_id": "41", "event": "progress",
        "writer": "rank0", "step": 7, "tokens": 7168,
    }  # fmt: skip
    assert read_events(run) == [written]


def test_scores_come_back_as_they_were_written_and_one_that_is_no_number_is_no_event(run: RunDir) -> None:
    writer = EventWriter(run, "evaluation", 1, "41")
    written = writer.write("evaluated", step=200, checkpoint="base@200", scores={"ruler/vt/4096": 0.1, "a/b/0": 1.0})
    assert read_events(run) == [written]
    assert Event.from_line(written.to_line().replace("0.1", "NaN")) is None


def test_the_host_s_lines_read_like_any_other(run: RunDir) -> None:
    text = '{"time":1.5,"run":"r","attempt":1,"job_id":"7","event":"exited","writer":"host","exit_code":137}'
    event = Event.from_line(text)
    assert event is not None
    assert (event.event, event.exit_code, event.to_line()) == ("exited", 137, text + "\n")


def test_two_writers_are_merged_by_time(run: RunDir) -> None:
    (run.events_dir / "host.jsonl").write_text(line(1, "started", "host") + line(4, "exited", "host"))
    (run.events_dir / "rank0.jsonl").write_text(line(2, "first_step", step=1) + line(3, "progress", step=2))
    assert [(e.time, e.writer, e.event) for e in read_events(run)] == [
        (1, "host", "started"),
        (2, "rank0", "first_step"),
        (3, "rank0", "progress"),
        (4, "host", "exited"),
    ]


@pytest.mark.parametrize("torn", ['{"time":3,"run":"de', '{"time":3}', "\0\0\0\0", "{}", "null", "\udcff"])
def test_a_torn_last_line_costs_only_itself(run: RunDir, torn: str) -> None:
    whole = line(1, "started") + line(2, "progress", step=1)
    (run.events_dir / "rank0.jsonl").write_bytes((whole + torn).encode(errors="surrogateescape"))
    assert [e.time for e in read_events(run)] == [1, 2]


def test_a_line_written_after_a_torn_one_is_read(run: RunDir) -> None:
    """A rank died in the middle of a line; the next attempt's rank 0 appends to the same file."""
    file = run.events_dir / "rank0.jsonl"
    file.write_text(line(1, "started") + '{"time":3,"run":"de')
    EventWriter(run, "rank0", 2, "7").write("first_step", step=1)
    EventWriter(run, "rank0", 2, "7").write("progress", step=2)
    assert [e.event for e in read_events(run)] == ["started", "first_step", "progress"]


def test_an_event_cut_short_by_a_full_disk_is_an_error_and_costs_only_itself(run: RunDir) -> None:
    writer = EventWriter(run, "rank0", 1, "7")
    writer.write("first_step", step=1)
    size = (run.events_dir / "rank0.jsonl").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))  # the kernel writes 20 bytes of the next
    try:
        with pytest.raises(OSError, match="No space left on device"):
            writer.write("progress", step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    writer.write("progress", step=3)
    assert [e.step for e in read_events(run)] == [1, 3]


def test_a_reason_may_hold_any_line_separator(run: RunDir) -> None:
    reason = "one\u2028two\u2029three\x85four\x0cfive"
    EventWriter(run, "rank0", 1, "7").write("failed", reason=reason)
    assert [e.reason for e in read_events(run)] == [reason]


def test_a_reader_gives_each_event_once_and_a_line_when_it_is_whole(run: RunDir) -> None:
    reader, host = EventReader(run), run.events_dir / "host.jsonl"
    assert reader.new() == []
    host.write_text(line(1, "started", "host"))
    assert [e.event for e in reader.new()] == ["started"]
    exited = line(3, "exited", "host")
    with host.open("a") as file:
        file.write(exited[:30])
        file.flush()
        assert reader.new() == []
        file.write(exited[30:])
    (run.events_dir / "rank0.jsonl").write_text(line(2, "progress", step=1))
    assert [e.event for e in reader.new()] == ["progress", "exited"]
    assert reader.new() == []


def test_a_second_between_two_nodes_clocks_does_not_end_the_next_attempt(run: RunDir) -> None:
    (run.events_dir / "host.jsonl").write_text(
        line(10, "started", "host")
        + line(20, "exited", "host")
        + line(20.1, "requeued", "host", reason="preempted")
        + line(19, "started", "host", attempt=2)
        + line(30, "exited", "host", attempt=2)
    )
    (run.events_dir / "rank0.jsonl").write_text(
        line(11, "first_step", step=1) + line(19.5, "first_step", step=2, attempt=2)
    )
    ledger = replay(read_events(run))
    assert ledger.restarts["preempted"] == 1
    assert [(a.number, a.end, a.ended) for a in ledger.attempts] == [(1, "preempted", 20.1), (2, "", 0)]
    assert (ledger.totals(30)["train"], ledger.totals(30)["stop"]) == (pytest.approx(9 + 9.9), pytest.approx(0.1))


@pytest.mark.parametrize("time", ["NaN", "1e400", "-1e400"])
def test_an_event_at_no_time_is_passed_over(time: str) -> None:
    assert Event.from_line(line(0, "started").replace('"time": 0', f'"time": {time}')) is None


def test_names_and_keys_of_a_newer_version_are_passed_over(run: RunDir) -> None:
    lines = line(1, "started", temperature=40) + line(2, "teleported") + line(3, "progress", step=1)
    (run.events_dir / "rank0.jsonl").write_text(lines)
    assert [e.event for e in read_events(run)] == ["started", "progress"]


def test_a_run_without_events_is_empty_not_an_error(tmp_path: Path) -> None:
    assert read_events(RunDir(tmp_path / "nothing-abc234")) == []


def test_listeners_hear_what_is_written(run: RunDir) -> None:
    heard: list[Event] = []

    class Listener:
        def add(self, event: Event) -> None:
            heard.append(event)

    writer = EventWriter(run, "rank0", 1, "7")
    writer.write("container_ready")
    writer.subscribe(Listener())
    written = writer.write("first_step", step=1)
    assert heard == [written]


_APPEND = """
import sys
from pathlib import Path
from xgen.runs import EventWriter, RunDir
writer = EventWriter(RunDir(Path(sys.argv[1])), "shared", 1, sys.argv[2])
for step in range(300):
    writer.write("progress", step=step, reason=sys.argv[2] * 2000)
"""


def test_lines_of_several_processes_never_interleave(run: RunDir) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", _APPEND, str(run.path), name], cwd=ROOT) for name in ("a", "b", "c")
    ]
    assert [child.wait(timeout=60) for child in children] == [0, 0, 0]
    lines = (run.events_dir / "shared.jsonl").read_text().splitlines()
    events = read_events(run)
    assert len(lines) == len(events) == 900
    for name in ("a", "b", "c"):
        mine = [e for e in events if e.job_id == name]
        assert [e.step for e in mine] == list(range(300))
        assert {e.reason for e in mine} == {name * 2000}


def compact(*args: Any, **facts: Any) -> str:
    """As pydantic writes it."""
    return json.dumps(json.loads(line(*args, **facts)), separators=(",", ":")) + "\n"


@st.composite
def trainings(draw: st.DrawFn) -> list[str]:
    """Lines of rank 0 over some attempts: restores, steps that are done again, saves, rollbacks of the guard."""
    lines, now, highest, saved = [], 0.0, 0, 0
    for attempt in range(1, draw(st.integers(1, 4)) + 1):
        step, waited, first = saved, 0.0, True
        lines += [compact(now + 1, "restore_begin", attempt=attempt)]
        lines += [compact(now + 2, "restore_end", attempt=attempt, step=step)]
        now += 3
        for what in draw(st.lists(st.sampled_from(["progress"] * 6 + ["save", "guard", "rollback"]), max_size=40)):
            now, step = now + draw(st.floats(1, 10)), step + draw(st.integers(1, 9))
            highest = max(highest, step)
            waited += draw(st.floats(0, 0.9))
            name = "first_step" if first else "progress"
            first = False
            lines.append(
                compact(now, name, attempt=attempt, step=step, data_wait=None if name == "first_step" else waited)
            )
            if what == "save":
                lines.append(compact(now + 0.1, "checkpoint_begin", attempt=attempt, step=step))
                lines.append(compact(now + 0.5, "checkpoint_durable", attempt=attempt, step=step))
                saved = step
            elif what in ("guard", "rollback"):
                action = "skip" if what == "guard" else "rollback"
                lines.append(compact(now + 0.1, "guard", attempt=attempt, step=step, action=action))
                if action == "rollback":
                    lines.append(compact(now + 0.2, "restore_begin", attempt=attempt, step=step))
                    lines.append(compact(now + 0.5, "restore_end", attempt=attempt, step=saved))
                    step, first = saved, True
        now += draw(st.floats(1, 20))
    return lines


@given(trainings(), st.integers(0, 30))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_ledger_comes_to_the_same_from_thinned_events(tmp_path: Path, lines: list[str], first: int) -> None:
    run = RunDir(tmp_path / f"tiny-{next(_NUMBERS):06}")
    run.create()
    started = [compact(0, "submitted", "client", attempt=0)]
    for one in lines:
        if '"restore_begin"' in one and '"step"' not in one:
            told = json.loads(one)
            started.append(compact(told["time"] - 0.5, "started", "host", attempt=told["attempt"]))
    (run.events_dir / "host.jsonl").write_text("".join(started))
    rank0, reader, thinned = run.events_dir / "rank0.jsonl", EventReader(run, thinned=True), Ledger()
    rank0.write_text("".join(lines[:first]))
    read = reader.new()
    rank0.write_text("".join(lines))
    for event in sorted([*read, *reader.new()], key=lambda e: (e.attempt, e.time)):
        thinned.add(event)
    whole = replay(read_events(run))
    now = json.loads(lines[-1])["time"] + 7
    assert thinned.totals(now) == pytest.approx(whole.totals(now), abs=1e-6)
    for name in ("highest_step", "lost_steps", "durable_step", "guarded", "restarts"):
        assert getattr(thinned, name) == getattr(whole, name), name


def test_of_a_long_training_few_events_are_read(run: RunDir) -> None:
    lines = [compact(10, "first_step", step=1), *(compact(10 + 5 * n, "progress", step=n) for n in range(2, 1000))]
    lines.insert(500, compact(10 + 5 * 500, "checkpoint_durable", step=500))
    (run.events_dir / "rank0.jsonl").write_text("".join(lines))
    read = EventReader(run, thinned=True).new()
    assert [(e.event, e.step) for e in read] == [
        ("first_step", 1), ("progress", 500), ("checkpoint_durable", 500), ("progress", 999),
    ]  # fmt: skip


def test_a_reader_counts_the_lines_that_are_no_event(run: RunDir) -> None:
    (run.events_dir / "rank0.jsonl").write_text(
        compact(1, "started") + '{"time": 2, "ru\n' + "\n" + compact(3, "progress")
    )
    reader = EventReader(run)
    assert [e.event for e in reader.new()] == ["started", "progress"]
    assert reader.num_skipped == 1
