"""`xgen status`, `show`, `why`, `plan` and `cancel` of a pipeline."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xgen.cli.common import print_json, usage
from xgen.cli.pipeline import check_steps, graph, table, trial

if TYPE_CHECKING:
    from xgen.cluster.pipeline import Record
    from xgen.cluster.pipeline_state import StepState
    from xgen.cluster.status import QueueView, RunStatus
    from xgen.runs import RunDir
    from xgen.spec import Resources

_ENDED = ("finished", "failed", "cancelled")


def show_status(run: RunDir, view: QueueView, *, as_json: bool) -> None:
    """The graph with the state of each step, and what is needed."""
    from xgen.cluster.pipeline_state import summary

    record, steps, work = _read(run, view)
    state, reason = summary(steps, run)
    if as_json:
        print_json(
            {
                "status": {"name": run.name, "state": state, "reason": reason},
                "path": run.path,
                "steps": [vars(one) | {"status": own[0] if (own := work.get(one.step)) else None} for one in steps],
            }
        )
        return
    print(f"{run.name}  {state}{f' ({reason})' if reason else ''}")
    by_name = {one.step: one for one in steps}
    rows = [
        (f"  {lead}{name}", _state(by_name[name], work.get(name)), record.steps[name].run, after)
        for name, lead, after in graph({name: one.needs for name, one in record.steps.items()})
    ]
    for line in table(rows):
        print(line)
    for line in _needed(run, steps, state):
        print(line)


def explain(run: RunDir, view: QueueView, *, as_json: bool) -> None:
    """`xgen why`: what holds the pipeline up, and what to do."""
    from xgen.cluster.pipeline_state import ENDED_BADLY, summary

    _, steps, work = _read(run, view)
    state, reason = summary(steps, run)
    bad = [one for one in steps if one.state in ENDED_BADLY]
    working = [one for one in steps if one.state in ("running", "pending")]
    evidence = [f"{one.step}: {_state(one, work.get(one.step))}" for one in (*bad, *working[:5])]
    do = _needed(run, steps, state)
    if as_json:
        print_json({"run": run.name, "state": state, "said": reason, "evidence": evidence, "fix": do})
        return
    print(f"{run.name} is {state}{f': {reason}' if reason else ''}")
    for line in evidence:
        print(f"  | {line}")
    for line in do:
        print(line)


def show_times(run: RunDir, view: QueueView, *, as_json: bool) -> None:
    """`xgen show`: how long each step waited and worked, and its GPU-hours; CPU-hours where no GPUs are."""
    from xgen.cli.show import gpu_hours, gpus_of
    from xgen.cluster.pipeline import step_run
    from xgen.drawing.wording import duration
    from xgen.runs import read_attempt_outcome, read_events
    from xgen.runs.history import history
    from xgen.spec import load_profile

    record, steps, _ = _read(run, view)
    cpus = not as_json and load_profile(run.profile_file).gpus.request == "none"
    unit = "CPU-hours" if cpus else "GPU-hours"
    now, rows, facts = time.time(), [("step", "state", "attempts", "queued", "held", unit)], []
    total, ends = 0.0, dict[str, float]()
    for one in steps:
        own = step_run(run, record, one.step)
        found = []
        turn = 0.0  # seconds until those before it had ended: no time in a queue
        if one.begun:
            events = read_events(own)
            outcomes = [read_attempt_outcome(own, number) for number in range(1, own.last_attempt() + 1)]
            found, ends[one.step] = history(events, outcomes, now), events[-1].time
            turn = max([0.0, *(ends.get(other, 0.0) - events[0].time for other in one.needs)])
        hours = sum(gpu_hours(found, gpus_of(own, of_shard=False, cpus=cpus)).values()) if found else 0.0
        queued, held = max(0.0, sum(row.queued for row in found) - turn), sum(row.held for row in found)
        total += hours
        facts.append({"step": one.step, "run": one.run, "state": one.state, "attempts": len(found),
                      "queued": queued, "held": held, "gpu_hours": hours})  # fmt: skip
        rows.append((one.step, one.state, str(len(found) or "-"), duration(queued), duration(held),
                     f"{hours:,.3g}" if hours else "-"))  # fmt: skip
    if as_json:
        print_json({"run": run.name, "steps": facts, "gpu_hours": total})
        return
    print(f"{run.name}  {len(steps)} steps")
    for line in table(rows):
        print(line)
    if total:
        print(f"{total:,.3g} {unit} in all; xgen show RUN has the attempts of a step")


def plan_pipeline(spec: Path, cluster: str | None, overrides: list[str], runtime: str | None, *, as_json: bool) -> None:
    """GPU-hours and time of each step, and of all."""
    from xgen.cli.pipeline_submit import find_place
    from xgen.plan import missing_stores, plans, warnings
    from xgen.spec import SpecError
    from xgen.spec.pipeline_load import load_pipeline
    from xgen.spec.units import format_duration

    found = load_pipeline(spec, overrides)
    name, profile = find_place(found, cluster, runtime)
    pipeline = found.pipeline
    runs = {step: f"{pipeline.name}-{step}-aaaaaa" for step in pipeline.order}
    facts: list[dict[str, Any]] = []
    notes: list[str] = []
    ends: dict[str, float] = {}  # seconds until a step has ended, where none waits for nodes
    with trial(found, runs, profile) as (place, steps):
        if problems := check_steps(found, place, steps, profile.run_root, stores=False):
            raise SpecError(*problems)
        for step in steps:
            numbers = plans(step.loaded.job, place)
            # Of work that trains and scores nothing there are no numbers but its time limit.
            known = any(one.flops or one.evaluation for one in numbers)
            hours = sum(one.gpu_hours * one.num_runs for one in numbers)
            seconds = sum(one.train_seconds * max(1, one.num_runs) for one in numbers)
            ends[step.name] = seconds + max((ends[other] for other in step.needs), default=0.0)
            tokens = sum(one.tokens * one.num_runs for one in numbers if one.num_trained)
            facts.append({
                "step": step.name, "kind": step.loaded.job.kind, "needs": dict(step.needs), "known": known,
                "tokens": tokens, "gpu_hours": hours, "seconds": seconds,
                "gpus": max(_gpus(resources) for _, resources in step.loaded.job.jobs),
            })  # fmt: skip
            made = tuple(one for other in steps for one in other.products)
            missing = [str(p) for p in missing_stores(step.loaded) if not any(one in p.message for one in made)]
            notes += [f"{step.name}: {note}" for note in (*warnings(step.loaded, place), *missing)]
    total, longest = sum(one["gpu_hours"] for one in facts), max(ends.values())
    if as_json:
        print_json({"name": pipeline.name, "cluster": name, "steps": facts, "gpu_hours": total, "seconds": longest,
                    "warnings": notes})  # fmt: skip
        return
    print(f"{pipeline.name} on {name}")
    by_name = {one["step"]: one for one in facts}
    rows = [("  step", "kind", "GPUs", "tokens", "GPU-hours", "time")]
    for step_name, lead, _ in graph({name: step.needs for name, step in pipeline.steps.items()}):
        one = by_name[step_name]
        cells = (f"{one['gpu_hours']:,.3g}", format_duration(one["seconds"])) if one["known"] else ("-", "-")
        rows.append(
            (
                f"  {lead}{step_name}",
                one["kind"],
                str(one["gpus"] or "-"),
                f"{one['tokens']:,}" if one["tokens"] else "-",
                *cells,
            )
        )
    for line in table(rows):
        print(line)
    print(f"  all: {total:,.3g} GPU-hours; {format_duration(longest)} one after the other, without waiting for nodes")
    for note in dict.fromkeys(notes):
        print(f"  warning   {note}")


def cancel_pipeline(run: RunDir, *, as_json: bool) -> None:
    """Every step that has not ended; what has finished stays."""
    import signal

    from xgen.cli.cancel import cancel_run
    from xgen.cluster import local
    from xgen.cluster.pipeline import step_run
    from xgen.cluster.slurm import SchedulerError
    from xgen.cluster.status import ask_slurm, is_anothers, not_ours, run_status
    from xgen.runs import EventWriter, write_atomic

    if is_anothers(run):
        usage(f"{run.name}: {not_ours(run)}; of the run of each step SLURM decides: xgen cancel RUN")
    if said := not_ours(run):
        usage(f"{run.name}: {said}")
    view = ask_slurm([run])
    record, steps, _ = _read(run, view)
    if view.jobs is None and not local.is_local(run):
        raise SchedulerError(view.error)
    if all(one.state in _ENDED for one in steps):
        usage(f"{run.name} has no step left to cancel")
    write_atomic(run.cancelled_file, "")
    local.send(run, signal.SIGTERM)  # before its steps end: it would go on with the next
    cancelled = []
    # From the end: none of them starts because the one before it was cancelled.
    for one in reversed(steps):
        own = step_run(run, record, one.step)
        if one.state in _ENDED or not own.path.is_dir():
            continue
        cancel_run(own, view, run_status(own, view))
        cancelled.append(one.step)
    EventWriter(run, "client", 0, "").write("cancelled", durable=True)
    cancelled.reverse()
    if as_json:
        print_json({"run": run.name, "cancelled": cancelled})
    else:
        print(f"{run.name}: cancelled {', '.join(cancelled) or 'what was yet to come'}")


def _read(run: RunDir, view: QueueView) -> tuple[Record, list[StepState], dict[str, tuple[RunStatus, str]]]:
    """Its record, the state of each step, and more of each that has begun and not finished: its status, and the name of
    its stage, '' for work without."""
    from xgen.cluster.pipeline import read_record, step_run
    from xgen.cluster.pipeline_state import step_states
    from xgen.cluster.status import ask_state, run_status

    record = read_record(run)
    assert record
    steps = step_states(run, record, view, ask_state)
    more = {one.step: step_run(run, record, one.step) for one in steps if one.begun and one.state != "finished"}
    return record, steps, {name: (run_status(own, view), _stage(own)) for name, own in more.items()}


def _stage(run: RunDir) -> str:
    from xgen.runs import read_events, replay

    try:
        attempts = replay(read_events(run)).attempts
    except OSError:  # its state says so
        return ""
    return attempts[-1].stage if attempts else ""


def _state(one: StepState, work: tuple[RunStatus, str] | None) -> str:
    reason = one.reason
    if work and one.state == "running":
        status, stage = work
        # Each stage is an attempt, so that their number says nothing of work that has several.
        reason = stage or f"attempt {status.attempt}"
        if status.step:
            reason = f"step {status.step}, {reason}"
    short = textwrap.shorten(reason, 60, placeholder=" …")
    return f"{one.state} ({short})" if short else one.state


def _needed(run: RunDir, steps: list[StepState], state: str) -> list[str]:
    from xgen.cluster.pipeline_state import ENDED_BADLY

    bad = [one for one in steps if one.state in ENDED_BADLY]
    if not bad:
        return []
    asks = ", ".join(f"xgen why {one.run}" for one in bad[:3] if one.begun)
    mend = f"{asks}; mend it, then " if asks else ""
    later = "" if state in ("failed", "lost", "cancelled") else " (the other steps go on meanwhile)"
    return [f"do: {mend}xgen resume {run.name}{later}; --dry-run shows which steps"]


def _gpus(resources: Resources) -> int:
    return resources.nodes * resources.gpus_per_node
