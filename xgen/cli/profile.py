"""`xgen profile`: a profile, or a snapshot of the memory, of a few steps of a training that runs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, print_json, usage
from xgen.cli.exec import stage_of
from xgen.cli.hold import ask

if TYPE_CHECKING:
    from pathlib import Path

    from xgen.runs import RunDir
    from xgen.runs.asked import ProfileRequest, ProfileResult

_LOOK_EVERY = 0.5  # seconds between two looks at what has come
_ASK_EVERY = 30.0  # seconds between two questions to the scheduler, whether the run still runs
_MOST_STEPS = 100  # a trace of the steps of a large model is megabytes a step
_MOST_RANKS = 64


def command(
    run: RunArgument,
    steps: Annotated[int, typer.Option("--steps", min=1, max=_MOST_STEPS, help="Of how many steps.")] = 3,
    ranks: Annotated[str, typer.Option("--ranks", metavar="N,N-N", help="Of these ranks, e.g. 0,8-11.")] = "0",
    memory: Annotated[
        bool, typer.Option("--memory", help="A snapshot of the GPU's memory too, with where each block comes from.")
    ] = False,
    timeout: Annotated[
        int,
        typer.Option("--timeout", metavar="SECONDS", min=1, help="The longest wait; what was asked for comes anyway."),
    ] = 900,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Profile the next steps of a training that runs: a trace for https://ui.perfetto.dev, and what took longest.

    All ranks begin at the same step. It computes the same as without; the steps take longer while they are recorded.
    """
    from xgen.runs import EventWriter
    from xgen.runs.asked import new_request
    from xgen.spec import Trained, load_resolved

    found = find_run(run, cluster)
    status, _ = ask(found)
    job = load_resolved(found.spec_file)
    if not isinstance(job, Trained):
        usage(f"{found.name} is a {job.kind}; profiles are of trainings. xgen exec {found.name} runs your own profiler")
    if status.state != "running":
        usage(f"{found.name} is {status.state}: nothing of it runs that could be profiled")
    world = job.jobs[stage_of(found, job)][1].world_size
    wanted = _parse(ranks, world)
    request = new_request(found.last_attempt(), steps, wanted, memory=memory)
    request.write(found)
    reason = f"profile of {steps} steps of ranks {ranks}" + (" with memory" if memory else "")
    EventWriter(found, "client", status.attempt, status.job_id).write("asked", reason=reason)
    results = _wait(found, request, timeout)
    if as_json:
        facts = [result.model_dump() | {"folder": str(folder)} for folder, result in results.values()]
        print_json({"run": found.name, "attempt": request.attempt, "ranks": facts})
        return
    for folder, result in results.values():
        _show(folder, result, memory=memory)


def _parse(text: str, world: int) -> tuple[int, ...]:
    """`0,8-11` as numbers. Leaves with exit code 2."""
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            usage(f"--ranks: {part!r} is no rank; write e.g. 0,8-11")
        numbers = range(int(first), int(last or first) + 1)
        if not numbers or numbers[-1] >= world:
            usage(f"--ranks: {part} is not among the ranks 0 to {world - 1}")
        found |= set(numbers)
    if len(found) > _MOST_RANKS:
        usage(f"--ranks: {len(found)} traces are more than anybody looks at; write {_MOST_RANKS} at most")
    return tuple(sorted(found))


def _wait(run: RunDir, request: ProfileRequest, timeout: float) -> dict[int, tuple[Path, ProfileResult]]:
    """Until all have come. Leaves with exit code 1 where some will not, and says which."""
    from xgen.runs.asked import profile_results

    began, asked, shown = time.monotonic(), time.monotonic(), -1
    while True:
        results = profile_results(run, request)
        if len(results) == len(request.ranks):
            return results
        if len(results) != shown:
            shown = len(results)
            print(f"{shown} of {len(request.ranks)} ranks, step {_step(run)}", file=sys.stderr, flush=True)
        waited = time.monotonic() - began
        over = f"waited {waited:.0f} s" if waited > timeout else ""
        if run.last_attempt() != request.attempt:
            over = f"attempt {request.attempt} has ended"
        elif time.monotonic() > asked + _ASK_EVERY:
            asked = time.monotonic()
            ask(run)
        if over:
            left = ", ".join(str(rank) for rank in request.ranks if rank not in results)
            print(f"{run.name}: {over}; nothing from rank {left}", file=sys.stderr)
            sys.exit(1)
        time.sleep(_LOOK_EVERY)


def _step(run: RunDir) -> str:
    from xgen.runs import read_events, replay

    ledger = replay(read_events(run))
    return f"{ledger.attempts[-1].last_step:,}" if ledger.attempts and ledger.attempts[-1].last_step else "-"


def _show(folder: Path, result: ProfileResult, *, memory: bool) -> None:
    from xgen.cli.common import printable

    steps = result.last_step - result.first_step + 1
    each = result.seconds / steps
    print(f"rank {result.rank}  steps {result.first_step} to {result.last_step}, {each:.3g} s each as recorded")
    if result.error:
        print(f"  failed    {printable(result.error)}")
    if result.trace:
        print(f"  trace     {folder / result.trace}")
    if result.memory:
        print(f"  memory    {folder / result.memory}      look at it: https://pytorch.org/memory_viz")
    elif memory and result.device != "cuda":
        print("  memory    none: it is of a GPU, and this training has none")
    for row in result.top[:10]:
        print(f"  {row.share:6.1%} {row.seconds / steps * 1e3:10.2f} ms {row.calls // steps:6d} x  {row.name[:44]}")
