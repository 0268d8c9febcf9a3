"""What a resume of a pipeline takes for the rest of a submission that was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from xgen.cluster import slurm
from xgen.cluster.pipeline import Record, StepRecord, step_run
from xgen.cluster.pipeline_state import StepState
from xgen.cluster.pipeline_submit import repair
from xgen.cluster.status import State
from xgen.runs import RunDir
from xgen.spec import Command, dump
from xgen.spec.pipeline import How

JOB = {"kind": "command", "name": "x", "command": ["true"], "resources": {"nodes": 1, "time": "5m"}, "lead": "10s"}
NEEDS: dict[str, dict[str, How]] = {"a": {}, "b": {"a": "ok"}}


class AskedError(Exception):
    """The queue was."""


@pytest.mark.parametrize(
    ("first", "is_noted", "asks"), [("finished", False, False), ("running", True, False), ("running", False, True)]
)
def test_a_step_is_mended_only_where_it_is_not_noted_that_it_waits_for_one_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: State, is_noted: bool, asks: bool
) -> None:
    steps = {name: StepRecord(run=f"p-{name}-aaaaaa", kind="command", needs=needs, fingerprint="")
             for name, needs in NEEDS.items()}  # fmt: skip
    record = Record(file="p.yaml", overrides=[], cluster="x", runtime=None, steps=steps)
    pipeline = RunDir(tmp_path / "p-aaaaaa")
    for job_id, name in enumerate(NEEDS, start=7):
        run = step_run(pipeline, record, name)
        run.create()
        run.spec_file.write_text(dump(Command.model_validate(JOB)))
        run.job_file(0).parent.mkdir()
        run.job_file(0).write_text(f"{job_id}\n")
    if is_noted:
        (tmp_path / "p-a-aaaaaa" / "waiting").mkdir()
        (tmp_path / "p-a-aaaaaa" / "waiting" / "8").write_text("afterok:7\n")
    found: dict[str, State] = {"a": first, "b": "pending"}
    states = {name: StepState(name, steps[name].run, "command", state, "", NEEDS[name], begun=name == "a")
              for name, state in found.items()}  # fmt: skip

    def queue() -> None:
        raise AskedError

    monkeypatch.setattr(slurm, "queue", queue)
    try:
        repair(pipeline, record, states)
        asked = False
    except AskedError:
        asked = True
    assert asked == asks
