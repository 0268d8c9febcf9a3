"""What a submission of a pipeline does with each step: a pure function of what was, what is wanted and what is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from xgen.cluster.pipeline import Record
from xgen.cluster.pipeline_state import AT_WORK, StepState, is_or_was
from xgen.spec.pipeline import How

# reuse: it has finished; wait: it is in the queue or runs; submit: it never began; resume: it goes on from what it
# saved, in its own run; anew: in another run.
Action = Literal["reuse", "wait", "submit", "resume", "anew"]
_RUNS = ("submit", "resume", "anew")


@dataclass(frozen=True)
class Wanted:
    """A step as the pipeline has it now."""

    name: str
    needs: Mapping[str, How]
    fingerprint: str


@dataclass(frozen=True)
class Intent:
    """What is done with a step, and why."""

    step: str
    action: Action
    why: str

    @property
    def runs(self) -> bool:
        return self.action in _RUNS


def intents(
    wanted: Collection[Wanted], record: Record | None, states: Mapping[str, StepState], again: Collection[str] = ()
) -> list[Intent]:
    """Of each step, in order. `again` are steps that run once more in any case."""
    found: dict[str, Intent] = {}
    for step in wanted:
        above = [name for name in step.needs if found[name].runs]
        found[step.name] = _intent(step, record, states.get(step.name), above, step.name in again, found)
    return list(found.values())


def _intent(
    step: Wanted,
    record: Record | None,
    state: StepState | None,
    above: list[str],
    forced: bool,
    found: Mapping[str, Intent],
) -> Intent:
    before = record.steps.get(step.name) if record else None
    if before is None or state is None:
        return Intent(step.name, "submit", "is new" if record else "")
    at_work = state.state in AT_WORK
    if not (state.begun or at_work):
        return Intent(step.name, "submit", "has not begun")
    if forced:
        return Intent(step.name, "anew", "is asked for")
    if before.fingerprint != step.fingerprint:
        return Intent(step.name, "anew", _changed(step, found))
    # One that goes on in its own run takes those that wait for it along; what is finished has not seen its result.
    renewed = above if state.state == "finished" else [name for name in above if found[name].action != "resume"]
    if renewed:
        return Intent(step.name, "anew", f"{', '.join(renewed)} {'run' if len(renewed) > 1 else 'runs'} again")
    if at_work:
        return Intent(step.name, "wait", f"is {state.state}")
    if state.state == "finished":
        return Intent(step.name, "reuse", "has finished")
    return Intent(step.name, "resume", is_or_was(state.state))


def _changed(step: Wanted, found: Mapping[str, Intent]) -> str:
    """The fingerprint has those of what it needs in it."""
    others = [name for name in step.needs if found[name].action in ("anew", "submit")]
    return f"{', '.join(others)} changed, or it did" if others else "its spec or its code changed"


def at_work(all_intents: Collection[Intent], states: Mapping[str, StepState]) -> list[StepState]:
    """Steps that would be made anew while they run or wait: a person has to cancel them first."""
    return [
        states[one.step]
        for one in all_intents
        if one.action == "anew" and one.step in states and states[one.step].state in AT_WORK
    ]
