"""Whether all is as it should be, from the runs' own files and from what SLURM's accounting remembers."""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from benchmarks.chaos.campaign import Campaign, Injection, Live
from benchmarks.chaos.chain import value_after
from xgen.runs import Event, EventName, RunDir, read_attempt_outcome, read_events

# Attempts that nobody could need: more than the faults that a run may meet.
_MOST_ATTEMPTS = 30
# Of these none ends an attempt at once: why it ended the run says itself.
_END_NONE = {"kill slurmd", "disk full", "slurmctld at submit", "time limit"}


@dataclass(frozen=True)
class JobRecord:
    """One start of a job, as sacct -D has it; times in seconds since the epoch, None before it started or ended."""

    job_id: str
    name: str
    state: str
    start: float | None
    end: float | None


def accounting(since: float) -> list[JobRecord]:
    """Of jobs that were submitted since then. sacct has older ones too, as long as it takes them to run: a controller
    that forgot them has not said that they ended."""
    fields = "jobid,jobname%80,state,start,end,submit"
    start = datetime.fromtimestamp(since).strftime("%Y-%m-%dT%H:%M:%S")
    command = ["sacct", "-D", "-X", "-n", "-P", f"--starttime={start}", f"--format={fields}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    rows = [line.split("|") for line in done.stdout.splitlines()]
    return [_record(row[:5]) for row in rows if (_seconds(row[5]) or 0) >= int(since)]


def _record(fields: Sequence[str]) -> JobRecord:
    job_id, name, state, start, end = fields
    return JobRecord(job_id, name, state, _seconds(start), _seconds(end))


def _seconds(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


@dataclass(frozen=True)
class Resumption:
    """From the end of an attempt's work to the first step of the next, seconds. `why`: the fault, or, of an attempt
    that none of ours has ended, the run's own word."""

    why: str
    seconds: float


def wrongs(campaign: Campaign, reference: RunDir | None, records: Iterable[JobRecord]) -> list[str]:
    """Every way in which a run is not as it should be; empty: all is well."""
    by_name: dict[str, list[JobRecord]] = defaultdict(list)
    for record in records:
        by_name[record.name].append(record)
    found = [f"{planned.name} was never submitted" for planned in campaign.waiting]
    for one in campaign.runs:
        found += [f"{one.run.name}: {said}" for said in _wrongs(one, reference, by_name[one.run.name])]
    submitted = {one.run.name for one in campaign.runs}
    strays = {name for name in by_name if name.startswith(("chain-", "train-"))} - submitted
    if reference:
        strays.discard(reference.name)
    # Whose submission was refused after SLURM had heard it is cancelled.
    ran = [r for name in sorted(strays) for r in by_name[name] if r.start and not r.state.startswith("CANCELLED")]
    return found + [f"{r.name} is no run of the campaign, and its job {r.job_id} ran: {r.state}" for r in ran]


def _wrongs(one: Live, reference: RunDir | None, records: Sequence[JobRecord]) -> Iterable[str]:
    expected = "failed" if one.planned.lasting else "finished"
    if one.state != expected:
        yield f"{one.state}, expected {expected}"
    elif expected == "finished" and (said := _result(one, reference)):
        yield said
    elif expected == "failed" and one.step() < (due := dict(one.planned.faults)[one.planned.lasting]):
        yield f"failed at step {one.step()}, before its {one.planned.lasting} at step {due}: {_ends(one.run)}"
    if (attempts := one.run.last_attempt()) > _MOST_ATTEMPTS:
        yield f"{attempts} attempts"
    if not records:
        yield "SLURM knows no job of it"
    yield from _overlaps(records, one.run)
    yield from _lost_checkpoints(one)


def _ends(run: RunDir) -> str:
    """Of each attempt the word and the reason of its end."""
    ends = [read_attempt_outcome(run, attempt) for attempt in range(1, run.last_attempt() + 1)]
    return "; ".join(f"{end.status}, {end.reason}" if end else "nobody saw its end" for end in ends)


def _result(one: Live, reference: RunDir | None) -> str:
    """What is wrong with what it came to; '' when it equals the undisturbed run."""
    if one.planned.kind == "command":
        file = one.run.path / "result"
        came = file.read_text() if file.exists() else "nothing"
        return "" if came == value_after(one.planned.steps) else f"came to {came[:12]}, not what undisturbed ones do"
    if reference is None:
        return "no undisturbed training to compare it with"
    own, expected = losses(one.run), losses(reference)
    if own == expected:
        return ""
    if missing := sorted(expected.keys() - own.keys()):
        return f"no record of {len(missing)} steps, the first of step {missing[0]}"
    wrong = [step for step in sorted(own) if own[step] != expected.get(step)]
    return f"another loss than the undisturbed one's at {len(wrong)} steps, the first at step {wrong[0]}"


def losses(run: RunDir) -> Mapping[int, str]:
    """To the bit, by step."""
    lines = (run.metrics_dir / "steps.jsonl").read_text().splitlines()
    return {record["step"]: record["loss_hex"] for record in map(json.loads, lines)}


def _overlaps(records: Sequence[JobRecord], run: RunDir) -> Iterable[str]:
    """Two jobs of one run at the same time. sacct counts whole seconds. Of one that the controller has forgotten it has
    no end: when its tasks had ended its batch script has said, if it did after that start."""
    exits = {e.job_id: e.time for e in read_events(run) if e.event == "exited"}

    def end(record: JobRecord) -> float:
        said = exits.get(record.job_id, 0.0)
        return record.end or (said if said >= (record.start or 0) else float("inf"))

    spans = sorted((r.start, end(r), r.job_id) for r in records if r.start is not None)
    for (_, end, job), (start, _, other) in itertools.pairwise(spans):
        if start is not None and start < end - 1 and job != other:
            yield f"job {other} started before job {job} had ended"


def _lost_checkpoints(one: Live) -> Iterable[str]:
    """An attempt that began before what the one before it had kept."""
    for attempt in range(2, one.run.last_attempt() + 1):
        before = read_attempt_outcome(one.run, attempt - 1)
        began = _began(one, attempt)
        if before and began is not None and began < before.durable_step:
            yield f"attempt {attempt} began at step {began}, and step {before.durable_step} was durable"


def _began(one: Live, attempt: int) -> int | None:
    """The step that an attempt resumed at; None where it did not come so far."""
    if one.planned.kind == "command":
        rows = [row for row in chain_rows(one.run) if row.attempt == attempt and row.what == "resumed"]
        return rows[0].step if rows else None
    ends = [e for e in read_events(one.run) if e.event == "restore_end" and e.attempt == attempt]
    return ends[0].step if ends else None


@dataclass(frozen=True)
class Row:
    """One line of what a rank of a chain did."""

    step: int
    attempt: int
    time: float
    what: str


def chain_rows(run: RunDir) -> list[Row]:
    try:
        lines = (run.path / "steps.0").read_text(errors="replace").splitlines()
    except OSError:
        return []
    rows = (line.split() for line in lines)
    return [Row(int(r[0]), int(r[1]), float(r[2]), r[3]) for r in rows if len(r) == 4]


def resumptions(one: Live, injections: Iterable[Injection]) -> list[Resumption]:
    """Of each attempt but the last. An attempt that nobody saw end has ended with the fault."""
    events = read_events(one.run)
    struck = [i for i in injections if one.run.name in i.runs and i.fault not in _END_NONE]
    found = []
    for attempt in range(1, one.run.last_attempt()):
        began, after = _time_of("started", events, attempt), _time_of("started", events, attempt + 1)
        exited, first = _time_of("exited", events, attempt), _first_step(one, events, attempt + 1)
        until = exited or after or 0
        fault = next((i for i in reversed(struck) if began and began <= i.time <= until), None)
        ended = exited or (fault and fault.time)
        if ended and first:
            found.append(Resumption(fault.fault if fault else _why(one.run, events, attempt), first - ended))
    return found


def _time_of(name: EventName, events: Sequence[Event], attempt: int) -> float | None:
    return next((e.time for e in events if e.event == name and e.attempt == attempt), None)


def _first_step(one: Live, events: Sequence[Event], attempt: int) -> float | None:
    if one.planned.kind == "training":
        return next((e.time for e in events if e.event == "first_step" and e.attempt == attempt), None)
    return next((row.time for row in chain_rows(one.run) if row.attempt == attempt and row.what == "step"), None)


def _why(run: RunDir, events: Sequence[Event], attempt: int) -> str:
    asked = next((e.reason for e in events if e.event == "requeued" and e.attempt == attempt), None)
    outcome = read_attempt_outcome(run, attempt)
    if outcome and outcome.status == "crashed" and "hung" in outcome.reason:
        return "hung"
    return asked or (outcome.status if outcome else "lost")


def percentile(values: Sequence[float], share: float) -> float:
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


def by_fault(injections: Iterable[Injection]) -> dict[str, tuple[int, int]]:
    """How often each came, and how often it hit somebody."""
    found: dict[str, tuple[int, int]] = {}
    for one in injections:
        came, hit = found.get(one.fault, (0, 0))
        found[one.fault] = (came + 1, hit + bool(one.runs))
    return found
