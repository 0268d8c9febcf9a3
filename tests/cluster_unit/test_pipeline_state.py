"""What a step that has not begun is, by what its pipeline says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from xgen.cluster import pipeline_state
from xgen.cluster.pipeline import Membership, Record, StepRecord
from xgen.cluster.status import QueueView, ask_state
from xgen.runs import EventWriter, RunDir
from xgen.spec.pipeline import How

NUM_STEPS = 30


def test_of_many_steps_that_never_began_the_pipeline_is_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a list of runs with one failed pipeline of 500 steps looks at 250,000."""
    names = [f"p-{number}-aaaaaa" for number in range(NUM_STEPS)]
    pipeline = RunDir(tmp_path / "p-aaaaaa")
    pipeline.create()
    steps = {}
    for number, name in enumerate(names):
        needs: dict[str, How] = {str(number - 1): "ok"} if number else {}
        steps[str(number)] = StepRecord(run=name, kind="command", needs=needs, fingerprint="")
    Record(file="p.yaml", overrides=[], cluster="x", runtime=None, steps=steps).write(pipeline)
    runs = [RunDir(tmp_path / name) for name in (*names, "p-1-bbbbbb")]
    for run in runs:
        run.create()
        Membership(pipeline=pipeline.name, step=run.name[2:-7]).write(run)
    runs[0].attempt_dir(1).mkdir()
    EventWriter(runs[0], "host", 1, "7").write("failed", reason="boom")

    calls = []
    whole = pipeline_state.step_states
    monkeypatch.setattr(pipeline_state, "step_states", lambda *words: (calls.append(1), whole(*words))[1])
    view = QueueView({})
    found = [ask_state(run, view) for run in runs]
    assert found[:3] == [("failed", "boom"), ("blocked", "0 is failed"), ("blocked", "1 is blocked")]
    assert {state for state, _ in found[1:-1]} == {"blocked"}
    assert found[-1] == ("cancelled", "another run of its pipeline has replaced it")
    assert len(calls) == 1
