"""`xgen data audit`: did a run train on exactly what its spec and its stores say?"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, print_json, usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xgen.data import Samples
    from xgen.runs import RunDir
    from xgen.spec import Preference, Pretrain, Sft, Trained

FirstOption = Annotated[int, typer.Option("--from", metavar="STEP", min=1, help="First step to read again.")]
LastOption = Annotated[int | None, typer.Option("--to", metavar="STEP", min=1, help="Last one; default: all.")]
ThreadsOption = Annotated[int, typer.Option("--threads", min=0, help="0: all cores.")]


@dataclass(frozen=True)
class Audit:
    """What was found. `difference` is the first one, '' for none."""

    run: str
    steps: int
    samples: int
    tokens: int
    unrecorded: int  # steps without a digest of their own: only a later total covers them
    totals: int  # checkpoints whose total was confirmed
    difference: str
    seconds: float


def command(
    run: RunArgument,
    cluster: ClusterOption = None,
    first: FirstOption = 1,
    last: LastOption = None,
    threads: ThreadsOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Read again what a run trained on, and compare it with the proof that it kept.

    Every step recorded a digest of its samples (numbers, tokens, document boundaries), whoever read them. This
    recomputes them from the spec and the stores, and names the first step that differs: its samples and their window.
    Exit code 1 when one does.
    """
    from xgen.data import StoreError, samples_of
    from xgen.spec import Preference, Pretrain, Sft, load_resolved

    found = find_run(run, cluster)
    job = load_resolved(found.spec_file)
    if not isinstance(job, Pretrain | Sft | Preference):
        usage(f"{found.name} is a {job.kind} run: only training consumes data that can be read again")
    try:
        samples = [samples_of(job, place.index, found.path) for place in job.places]
        audit = _audit(found, job, samples, first, last, threads)
    except (StoreError, ValueError) as error:
        usage(str(error))
    if as_json:
        print_json(audit)
    else:
        print(
            f"{audit.run}  {audit.steps:,} steps, {audit.samples:,} samples, {audit.tokens:,} tokens read again "
            f"in {audit.seconds:.1f} s"
        )
        if audit.unrecorded:
            print(f"  {audit.unrecorded:,} steps have no record of their own; totals of checkpoints cover them")
        if audit.difference:
            print(f"  differs: {audit.difference}", file=sys.stderr)
            print(f"  next: {_next(job, found)}", file=sys.stderr)
        else:
            print(f"  all of it is what the spec says; {audit.totals} checkpoints confirm the total")
    sys.exit(1 if audit.difference else 0)


def _next(job: Pretrain | Sft | Preference, run: RunDir) -> str:
    from xgen.data.chat.prepare import chat_store
    from xgen.spec import Pretrain

    if isinstance(job, Pretrain):
        return f"xgen data verify {' '.join(job.data.folders.values())}"
    return f"look at {chat_store(job, run.path)}, which was prepared once and must not change"


def _audit(run: RunDir, job: Trained, samples: Sequence[Samples], first: int, last: int | None, threads: int) -> Audit:
    import time

    from xgen.data.audit import read_claims, recompute
    from xgen.data.progress import show_progress

    began = time.monotonic()
    steps_file = run.metrics_dir / "steps.jsonl"
    if not steps_file.is_file():
        usage(f"{run.name} has not finished a step: there is nothing to audit")
    claims = [c for c in read_claims(steps_file, job) if first <= c.step <= (last or c.step)]
    totals, fingerprints = _manifests(run)
    difference = ""
    for step, fingerprint in sorted(fingerprints.items()):
        now = samples[job.place_after(step - 1).index].fingerprint
        if fingerprint != now:
            difference = (
                f"checkpoint step-{step} was made with the data order {fingerprint}, and spec and stores now give "
                f"{now}: a store was changed"
            )
            claims = []
            break
    steps = unrecorded = confirmed = num_samples = num_tokens = 0
    with show_progress() as progress:
        for checked in recompute(samples.__getitem__, claims, job, threads):
            claim = checked.claim
            stage = job.places[claim.stage].stage
            steps += 1
            num_samples += stage.sequences_per_step
            num_tokens += stage.global_batch
            progress("steps", steps, len(claims))
            unrecorded += claim.digest is None
            if checked.differs:
                difference = _say(claim.step, claim.first_sample, stage.sequences_per_step, samples[claim.stage])
                difference += f"; recorded {claim.digest:016x}, now {checked.digest:016x}"
                break
            # A total is of all steps: it says nothing about a part that begins later.
            if claims[0].step == 1 and claim.step in totals:
                if totals[claim.step] != checked.total:
                    difference = f"the total of checkpoint step-{claim.step}, though no recorded step before it differs"
                    break
                confirmed += 1
    seconds = round(time.monotonic() - began, 3)
    return Audit(run.name, steps, num_samples, num_tokens, unrecorded, confirmed, difference, seconds)


def _manifests(run: RunDir) -> tuple[dict[int, int], dict[int, str]]:
    """Total digest and data order of the complete checkpoints, by step."""
    from xgen.train.manifest import Fault, Manifest

    totals, fingerprints = {}, {}
    for step in run.checkpoint_steps():
        try:
            manifest = Manifest.read(run.checkpoints_dir / f"step-{step}")
        except Fault:
            continue  # `xgen checkpoints` speaks of those
        fingerprints[step] = manifest.data
        if manifest.data_digest:
            totals[step] = int(manifest.data_digest, 16)
    return totals, fingerprints


def _say(step: int, first: int, per_step: int, samples: Samples) -> str:
    where = f"step {step} (samples {first:,} to {first + per_step - 1:,}"
    windows = getattr(samples, "window_samples", 0)
    if not windows:
        return f"{where})"
    low, high = first // windows, (first + per_step - 1) // windows
    return f"{where}, window {low}" + (f" to {high})" if high > low else ")")
