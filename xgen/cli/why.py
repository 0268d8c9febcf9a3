"""`xgen why`: why a run waits, why it died, or that all is well; and what to do."""

from __future__ import annotations

import shutil
import textwrap
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, print_json, printable
from xgen.cli.pipeline import shows_pipeline

if TYPE_CHECKING:
    from xgen.cluster.slurm import QueueRow
    from xgen.cluster.status import QueueView, RunStatus
    from xgen.runs import RunDir

_LATE = 3  # heartbeats that are missing
_HELD = "JobHeldUser"  # as the local executor says it, too


@dataclass
class Answer:
    """One sentence, what supports it, and what to do."""

    run: str
    state: str
    said: str
    evidence: list[str] = field(default_factory=list)
    fix: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def command(
    run: RunArgument,
    cluster: ClusterOption = None,
    shard: Annotated[str | None, typer.Option("--shard", metavar="[STAGE/]N", help="One shard of a job array.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a run waits (priority, resources, limits, dependency) or why it died: the first error, not the last."""
    from xgen.cli.settled import settled_view
    from xgen.cluster.status import run_status

    found = part = find_run(run, cluster)
    if shows_pipeline(found, "why", as_json=as_json):
        return
    view = settled_view(found, "xgen why")
    if shard is not None:
        from xgen.cli.shards import find_shard

        part = found.shard(*find_shard(found, shard))
    elif given_up := _first_given_up(found):
        part = given_up
    answer = _answer(found, part, run_status(found, view), view)
    if as_json:
        print_json(asdict(answer))
        return
    _print(f"{answer.run} {answer.said}")
    for line in answer.evidence:
        _print(printable(line), "  | ", "  |     ")
    if answer.fix:
        _print(answer.fix, "do: ", "    ")


def _print(text: str, first: str = "", rest: str = "") -> None:
    """In the terminal's width; what may be a name, a path or a command is not broken."""
    width = shutil.get_terminal_size().columns
    wrap = textwrap.TextWrapper(
        width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    print(wrap.fill(text))


def _answer(run: RunDir, part: RunDir, status: RunStatus, view: QueueView) -> Answer:
    from xgen.cluster.waiting import explain

    answer = Answer(run.name, status.state, "")
    row = view.jobs.get(run.name) if view.jobs else None
    match status.state:
        case "pending" if row is not None:
            _waits(answer, run, row)
        case "pending" if status.reason == _HELD:  # without SLURM
            why = explain(status.reason)
            answer.said, answer.fix = f"waits: {why.meaning}", why.fix.replace("RUN", answer.run)
        case "running":
            _runs(answer, run)
        case "failed" | "lost":
            _died(answer, part, status)
        case "finished":
            answer.said, answer.fix = "has finished", f"nothing; xgen show {run.name} says what it cost"
        case "cancelled":
            answer.said, answer.fix = "was cancelled by a person", f"nothing; xgen resume {run.name} lets it go on"
            answer.evidence += _by_whom(run, status.job_id)
        case _:
            answer.said = f"is {status.state}{f': {status.reason}' if status.reason else ''}"
            if view.jobs is None and view.error:
                answer.fix = f"ask again; xgen show {run.name} has what its files say"
    if status.state in ("running", "pending"):
        _restarts(answer, part)
    return answer


def _first_given_up(run: RunDir) -> RunDir | None:
    """Of the shards that are given up, the one of the lowest number: it has the log that the run itself lacks."""
    from xgen.runs.shards import given_up_shards

    for stage in sorted(run.shards_dir.iterdir()) if run.shards_dir.is_dir() else ():
        if stage.is_dir() and (numbers := given_up_shards(run, stage.name)):
            return run.shard(stage.name, min(numbers))
    return None


def _waits(answer: Answer, run: RunDir, row: QueueRow) -> None:
    from xgen.cluster.waiting import TOO_LARGE, explain
    from xgen.cluster.waiting_facts import facts

    why, known = explain(row.reason), facts(row)
    at = row.start.replace("T", " ")
    starts = f"; not before {at}" if why.code == "BeginTime" else f"; SLURM expects it to start at {at}"
    starts = "" if row.start in ("", "N/A") else starts
    answer.said = f"waits in partition {row.partition}, job {row.job_id} ({why.code}): {why.meaning}{starts}"
    answer.fix = (TOO_LARGE if known.too_large else why.fix).replace("JOB", row.job_id).replace("RUN", answer.run)
    answer.facts = {"reason": why.code, "start": row.start, "partition": row.partition, "job_id": row.job_id}
    answer.evidence += [*known.lines, *_excluded(run)]


def _excluded(run: RunDir) -> list[str]:
    """The team's exclude list, which makes fewer nodes to wait for."""
    from contextlib import suppress

    from xgen.cluster.nodes import read_nodes
    from xgen.drawing.wording import moment

    found = []
    with suppress(OSError):
        found = [one.excluded for one in read_nodes(run.path.parent, 0, time.time()) if one.excluded]
    return [f"node {one.node} (excluded until {moment(one.until)}) {one.reason}" for one in found[:5]]


def _runs(answer: Answer, run: RunDir) -> None:
    from xgen.cli.status import is_training
    from xgen.runs import read_events, replay
    from xgen.runs.slow import often_slow
    from xgen.spec.units import format_duration

    events, now = read_events(run), time.time()
    ledger = replay(events)
    if not ledger.attempts:
        answer.said = "has just started"
        return
    attempt = ledger.attempts[-1]
    phase = "work" if ledger.phase == "start" and not is_training(run, ledger) else ledger.phase
    saved = f", saved step {ledger.durable_step:,} {_ago(now - ledger.durable_time)}" if ledger.durable_time else ""
    where = f" on {attempt.nodes}" if attempt.nodes else ""
    answer.said = (
        f"runs{where}, attempt {attempt.number}, which began {_ago(now - attempt.started)}, in phase {phase}{saved}"
    )
    answer.fix = "nothing"
    has_ended = any(event.event == "exited" and event.attempt == attempt.number for event in events)
    if has_ended or ledger.phase == "queued":  # without SLURM, which has a state of its own for one that waits
        last = next((e for e in events if e.event == "requeued" and e.attempt == attempt.number), None)
        if last is None:
            answer.said = f"has ended attempt {attempt.number}, and is deciding what follows"
            answer.fix = "nothing; ask again in some seconds"
            return
        wait = max(0.0, last.time + (last.seconds or 0) - now)
        begins = f"in {format_duration(wait)}" if wait >= 1 else "now"
        answer.said = f"waits for attempt {attempt.number + 1}, which begins {begins}"
        return
    if run.held_file.exists():
        answer.evidence.append("on hold: its next attempt does not begin")
        answer.fix = f"xgen release {run.name}, if it is to go on by itself"
    answer.evidence += _silent(run, attempt.number, now)
    if slow := often_slow(events):
        answer.evidence.append(str(slow))
        if slow.node:
            answer.fix = f"xgen nodes exclude {slow.node}, if it goes on"


def _silent(run: RunDir, attempt: int, now: float) -> list[str]:
    """Nodes without a heartbeat, and ranks that do not move: of each kind the worst one."""
    from xgen.hang.beat import PERIOD, read_beats

    beats = read_beats(run.path, attempt)
    said = []
    late = [beat for beat in beats if now - beat.time > _LATE * PERIOD]
    if late:
        worst = min(late, key=lambda beat: beat.time)
        said.append(f"{len(late)} of {len(beats)} nodes have no heartbeat, {worst.node} since {_ago(now - worst.time)}")
    still = [(rank, beat.node) for beat in beats for rank in beat.ranks if rank.silent > _LATE * PERIOD]
    if still:
        rank, node = max(still, key=lambda one: one[0].silent)
        said.append(
            f"{len(still)} ranks do not move: rank {rank.rank} on {node} for {rank.silent:.0f} s, in phase {rank.phase}"
        )
    return said


def _blamed(part: RunDir, attempt: int) -> list[str]:
    """Nodes that an attempt found broken, or died by, and what was done about them."""
    from xgen.runs import read_events

    words = {"unhealthy": "is unhealthy:", "node_excluded": "is excluded"}
    return [
        f"node {event.nodes} {words[event.event]} {event.reason}"
        for event in read_events(part)
        if event.attempt == attempt and event.event in words
    ]


def _by_whom(run: RunDir, job_id: str) -> list[str]:
    """Who cancelled it: with xgen, or with scancel, which the accounting remembers."""
    from contextlib import suppress

    from xgen.cluster import local
    from xgen.cluster.slurm import SchedulerError, cancelled_by
    from xgen.drawing.wording import moment
    from xgen.runs.users import user_name

    with suppress(FileNotFoundError):
        mark = run.cancelled_file.stat()
        return [f"xgen cancel by {user_name(mark.st_uid)}, {moment(mark.st_mtime)}"]
    with suppress(SchedulerError):
        if not local.is_local(run) and (user := cancelled_by(run.name, job_id)) is not None:
            return [f"scancel by {user_name(user)}, of job {job_id}"]
    return []


def _limit(part: RunDir, stage: int, key: str) -> list[str]:
    """What the spec has for a key of `resources` or `container` that a death in a stage speaks of."""
    from xgen.spec import SpecError, load_resolved

    try:
        job = load_resolved(part.spec_file)
    except (SpecError, OSError):
        return []
    room, _, name = key.partition(".")
    holder = job.jobs[stage][1] if room == "resources" else job.container
    value = holder.model_dump(mode="json")[name]
    return [f"the spec has {f'{key}: {value}' if value is not None else f'no {key}'}"]


def _died(answer: Answer, part: RunDir, status: RunStatus) -> None:
    from xgen.cluster.deaths import first_error
    from xgen.runs import read_attempt_outcome
    from xgen.runs.flight import collectives

    attempt = part.last_attempt()
    outcome = read_attempt_outcome(part, attempt) if attempt else None
    refused = outcome is not None and outcome.status == "refused"
    death = first_error(part, attempt) if attempt else None
    given_up = "" if status.state == "failed" else " (nobody decided what follows)"
    stage = outcome.stage if outcome else 0
    if "came to their time limit" in status.reason:
        answer.said = f"died in attempt {attempt}: it came to its time limit, and had saved nothing new"
        answer.evidence = _limit(part, stage, "resources.time")
        answer.fix = f"let it save more often, or xgen resume {answer.run} --set resources.time=N"
        answer.facts = {"attempt": attempt, "cause": "time limit"}
        return
    if death is None:
        answer.said = f"is {status.state}{given_up}: {status.reason or 'no error is on record'}"
        answer.fix = f"xgen logs {answer.run} --err; xgen resume {answer.run} tries again"
        return
    rank = "" if death.rank is None else f" of rank {death.rank}"
    known = f": {death.meaning}" if death.meaning else ""
    array, number = part.path.parts[-2:]
    shard = "" if part.whole == part else f" of shard {number}" if array == "array" else f" of shard {array}/{number}"
    ended = (
        f"was refused in attempt {attempt}{shard}: no try can help" if refused else f"died in attempt {attempt}{shard}"
    )
    where = f" on {death.node}" if death.node else ""
    answer.said = f"{ended}{known}. The first error{rank}{where}: {death.error}"
    limit = _limit(part, stage, death.key) if death.key else []
    answer.evidence = [*death.lines, *limit, *collectives(part, attempt), *_blamed(part, attempt)]
    again = f"xgen resume {answer.run}"
    if "restart.max_gpu_hours" in status.reason:
        again += " --set restart.max_gpu_hours=N"
        answer.evidence.append(status.reason.partition(";")[0])
    if refused:  # by the same spec it would be so again
        answer.fix = f"correct the spec, then xgen submit SPEC; or {again} --set KEY=VALUE, where a run may change KEY"
    else:
        unknown = f"mend what xgen logs {answer.run} shows"
        answer.fix = f"{death.fix.replace('RUN', answer.run) or unknown}; then {again}"
    answer.facts = {"attempt": attempt, "rank": death.rank, "error": death.error, "cause": death.meaning}


def _restarts(answer: Answer, run: RunDir) -> None:
    """How often it was started again, and why each time."""
    from xgen.cluster.deaths import LOST_NODE, lost_a_node
    from xgen.runs import read_attempt_outcome, read_events
    from xgen.runs.history import history

    outcomes = [read_attempt_outcome(run, number) for number in range(1, run.last_attempt() + 1)]
    for row in [row for row in history(read_events(run), outcomes, time.time()) if row.ended][-3:]:
        lost = f": {LOST_NODE}" if lost_a_node(run, row.number) else ""
        answer.evidence.append(f"attempt {row.number}: {row.ended}{lost}")


def _ago(seconds: float) -> str:
    from xgen.spec.units import format_duration

    return f"{format_duration(max(1, seconds))} ago"
