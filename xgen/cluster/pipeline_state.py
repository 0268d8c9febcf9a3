"""Where a pipeline stands: a function of the states of its runs, and for a run that never began, of those it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xgen.cluster import local
from xgen.cluster.pipeline import Record, membership, read_record, step_run
from xgen.runs import RunDir
from xgen.spec.pipeline import How

if TYPE_CHECKING:
    from xgen.cluster.status import QueueView, State

AT_WORK = ("pending", "running", "unknown")
ENDED_BADLY = ("failed", "cancelled", "lost", "unreadable")
_ORDER: tuple[State, ...] = ("running", "unknown", "unreadable", "pending")


@dataclass(frozen=True)
class StepState:
    """A step and the state of its run, in the words of `xgen status`."""

    step: str
    run: str
    kind: str
    state: State
    reason: str
    needs: Mapping[str, How]
    begun: bool  # whether it has ever started


AskState = Callable[[RunDir, "QueueView"], tuple["State", str]]


def step_states(pipeline: RunDir, record: Record, view: QueueView, ask: AskState) -> list[StepState]:
    """In the order of the steps. `ask` gives the state of a run that has begun or is in the queue."""
    found: dict[str, StepState] = {}
    alive = local.is_alive(pipeline)
    for name, step in record.steps.items():
        run = step_run(pipeline, record, name)
        begun = run.last_attempt() > 0
        state, reason = _state(run, begun, view, ask) or _unstarted(
            run, {other: found[other].state for other in step.needs}, step.needs, pipeline, alive
        )
        found[name] = StepState(name, step.run, step.kind, state, reason, step.needs, begun)
    return list(found.values())


def _state(run: RunDir, begun: bool, view: QueueView, ask: AskState) -> tuple[State, str] | None:
    """None for one that has not begun and has no job."""
    if begun or local.is_alive(run) or (view.jobs is not None and run.name in view.jobs):
        return ask(run, view)
    if run.cancelled_file.exists():
        return "cancelled", ""
    if view.jobs is None and not local.is_local(run) and _was_submitted(run):
        return "unknown", view.error
    return None


def _was_submitted(run: RunDir) -> bool:
    return run.job_file(0).parent.is_dir()


def _unstarted(
    run: RunDir, needs: Mapping[str, State], how: Mapping[str, How], pipeline: RunDir, alive: bool
) -> tuple[State, str]:
    """Of a step that has neither begun nor a job in the queue."""
    if blocking := [name for name, state in needs.items() if how[name] == "ok" and state in (*ENDED_BADLY, "blocked")]:
        return "blocked", ", ".join(f"{name} {is_or_was(needs[name])}" for name in blocking)
    if alive:
        waits = [name for name, state in needs.items() if state in AT_WORK]
        return "pending", f"after {', '.join(waits)}" if waits else "is the next"
    said = "its job is gone" if _was_submitted(run) else "it was not submitted"
    return "lost", f"{said}; write xgen resume {pipeline.name}"


def is_or_was(state: State) -> str:
    return f"{'was' if state == 'cancelled' else 'is'} {state}"


def pipeline_state(pipeline: RunDir, view: QueueView, ask: AskState) -> tuple[State, str]:
    """Of the whole. Raises OSError when it cannot be read."""
    record = read_record(pipeline)
    assert record
    return summary(step_states(pipeline, record, view, ask), pipeline)


def summary(steps: list[StepState], pipeline: RunDir) -> tuple[State, str]:
    """Of the whole, from its steps."""
    states = [step.state for step in steps]
    finished = f"{states.count('finished')} of {len(steps)} steps have finished"
    bad = [f"{step.step} {is_or_was(step.state)}" for step in steps if step.state in ENDED_BADLY]
    if all(state == "finished" for state in states):
        return "finished", ""
    for state in _ORDER:
        if state in states:
            between = state == "pending" and "finished" in states  # two steps
            return "running" if between else state, "; ".join([finished, *bad])
    if local.is_alive(pipeline):
        return "running", finished
    if pipeline.cancelled_file.exists() and "failed" not in states:
        return "cancelled", finished
    state = "failed" if "failed" in states else "cancelled" if "cancelled" in states else "lost"
    return state, f"{', '.join(bad[:3])}{', …' * (len(bad) > 3)}; write xgen resume {pipeline.name}"


def unstarted_state(run: RunDir, view: QueueView, ask: AskState) -> tuple[State, str] | None:
    """Of a run that has never begun and has no job: what its pipeline says of it; None for what is no step."""
    member = membership(run)
    if member is None or run.last_attempt() > 0:
        return None
    pipeline = RunDir(run.path.parent / member.pipeline)
    if (steps := view.steps.get(str(pipeline.path))) is None:
        record = read_record(pipeline)
        found = step_states(pipeline, record, view, ask) if record else []
        steps = view.steps[str(pipeline.path)] = {one.run: one for one in found}
    if (own := steps.get(run.name)) is None:
        return "cancelled", "another run of its pipeline has replaced it"
    return own.state, own.reason
