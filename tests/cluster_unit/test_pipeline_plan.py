"""What a resume of a pipeline does with each step."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest
import yaml

from xgen.cluster.pipeline import Record, StepRecord, fingerprint
from xgen.cluster.pipeline_plan import Wanted, at_work, intents
from xgen.cluster.pipeline_state import StepState
from xgen.cluster.status import State
from xgen.spec import load_job
from xgen.spec.pipeline import How

NEEDS: dict[str, dict[str, How]] = {
    "a": {}, "b": {"a": "ok"}, "c": {"a": "ok"}, "d": {"b": "ok", "c": "ok"}, "report": {"c": "any"},
}  # fmt: skip
BEGUN = ("running", "finished", "failed", "lost", "cancelled")


def decide(states: dict[str, State], changed: Collection[str] = (), again: Collection[str] = ()) -> dict[str, str]:
    record = Record(file="p.yaml", overrides=[], cluster="x", runtime=None, steps={
        name: StepRecord(run=f"p-{name}-aaaaaa", kind="command", needs=needs, fingerprint=f"old {name}")
        for name, needs in NEEDS.items()
    })  # fmt: skip
    wanted = [Wanted(name, needs, f"{'new' if name in changed else 'old'} {name}") for name, needs in NEEDS.items()]
    found = {
        name: StepState(name, f"p-{name}-aaaaaa", "command", state, "", NEEDS[name], begun=state in BEGUN)
        for name, state in states.items()
    }
    decided = intents(wanted, record, found, again)
    said = {one.step: one.action for one in decided}
    return said | {one.step: f"{said[one.step]} at work" for one in at_work(decided, found)}


def test_what_failed_goes_on_and_what_waited_for_it_is_submitted() -> None:
    states: dict[str, State] = {"a": "finished", "b": "finished", "c": "failed", "d": "blocked", "report": "finished"}
    assert decide(states) == {"a": "reuse", "b": "reuse", "c": "resume", "d": "submit", "report": "anew"}


def test_a_step_whose_spec_changed_is_made_anew_with_all_below_it() -> None:
    states: dict[str, State] = {"a": "finished", "b": "finished", "c": "failed", "d": "blocked", "report": "finished"}
    changed = decide(states, changed=["c", "d"])  # a fingerprint has those above in it
    assert changed == {"a": "reuse", "b": "reuse", "c": "anew", "d": "submit", "report": "anew"}


def test_what_runs_goes_on_while_a_branch_is_resumed() -> None:
    states: dict[str, State] = {"a": "finished", "b": "running", "c": "cancelled", "d": "blocked", "report": "pending"}
    assert decide(states) == {"a": "reuse", "b": "wait", "c": "resume", "d": "submit", "report": "wait"}


def test_what_runs_with_another_spec_is_named() -> None:
    states: dict[str, State] = {"a": "finished", "b": "running", "c": "failed", "d": "blocked", "report": "finished"}
    assert decide(states, changed=["b", "d"])["b"] == "anew at work"
    assert decide(states, again=["a"])["b"] == "anew at work"


def test_a_submission_that_was_killed_goes_on_where_it_was() -> None:
    states: dict[str, State] = {"a": "running", "b": "pending"}
    assert decide(states) == {"a": "wait", "b": "wait", "c": "submit", "d": "submit", "report": "submit"}


def test_from_a_step_on() -> None:
    states: dict[str, State] = dict.fromkeys(NEEDS, "finished")
    assert decide(states) == dict.fromkeys(NEEDS, "reuse")
    assert decide(states, again=["b"]) == {
        "a": "reuse", "b": "anew", "c": "reuse", "d": "anew", "report": "reuse",
    }  # fmt: skip


COMMAND = {
    "kind": "command",
    "name": "c",
    "command": ["python", "a.py"],
    "env": {"A": "1"},
    "resources": {"time": "5m"},
}


def of_sweep(**keys: object) -> dict[str, object]:
    return {"kind": "sweep", "name": "s", "resources": {"time": "5m"}, "spec": COMMAND} | keys


@pytest.mark.parametrize(
    "spec",
    [
        COMMAND,
        of_sweep(over={"command.2": [1, 2]}),
        of_sweep(over={"command": [["sh", "a.py"], ["sh", "b.py"]]}),
        of_sweep(points=[{"command.1": "a.py"}, {"command.1": "b.py"}]),
    ],
    ids=["command", "word", "words", "listed"],
)
def test_a_command_and_a_sweep_of_one_are_another_with_their_files_and_their_environment(
    tmp_path: Path, spec: dict[str, object]
) -> None:
    def prints(*overrides: str) -> str:
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
        return fingerprint(load_job(tmp_path / "spec.yaml", overrides, tmp_path), {}, {})

    (tmp_path / "a.py").write_text("one")
    before = prints()
    assert prints("resources.time=6m") == before
    assert prints("env.A=2") != before
    (tmp_path / "a.py").write_text("another")
    assert prints() != before
