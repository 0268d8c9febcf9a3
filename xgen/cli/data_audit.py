"""`xgen data audit`: did a run train on exactly what its spec and its stores say?"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, print_json, usage

if TYPE_CHECKING:
    from xgen.runs import RunDir
    from xgen.spec import Pretrain

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
    from xgen.spec import Pretrain, load_resolved

    found = find_run(run, cluster)
    job = load_resolved(found.spec_file)
    if not isinstance(job, Pretrain):
        usage(f"{found.name} is a {job.kind} run: only training consumes data")
    try:
        audit = _audit(found, job, samples_of(job), first, last, threads)
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
            print(f"  next: xgen data verify {' '.join(job.data.folders.values())}", file=sys.stderr)
        else:
            print(f"  all of it is what the spec says; {audit.totals} checkpoints confirm the total")
    sys.exit(1 if audit.difference else 0)


def _audit(run: RunDir, job: Pretrain, samples: Any, first: int, last: int | None, threads: int) -> Audit:
    import time

    from xgen.data.audit import read_claims, recompute
    from xgen.data.progress import show_progress

    began, per_step = time.monotonic(), job.stage.sequences_per_step
    steps_file = run.metrics_dir / "steps.jsonl"
    if not steps_file.is_file():
        usage(f"{run.name} has not finished a step: there is nothing to audit")
    claims = [c for c in read_claims(steps_file, per_step) if first <= c.step <= (last or c.step)]
    totals, fingerprints = _manifests(run)
    difference = ""
    if wrong := next((s for s, name in sorted(fingerprints.items()) if name != samples.fingerprint), None):
        difference = (
            f"checkpoint step-{wrong} was made with the data order {fingerprints[wrong]}, and spec and stores "
            f"now give {samples.fingerprint}: a store was changed"
        )
        claims = []
    steps = unrecorded = confirmed = 0
    with show_progress() as progress:
        for checked in recompute(samples, claims, per_step, threads):
            steps += 1
            progress("steps", steps, len(claims))
            claim = checked.claim
            unrecorded += claim.digest is None
            if checked.differs:
                difference = _say(claim.step, claim.first_sample, per_step, samples)
                difference += f"; recorded {claim.digest:016x}, now {checked.digest:016x}"
                break
            # A total is of all steps: it says nothing about a part that begins later.
            if claims[0].first_sample == 0 and claim.step in totals:
                if totals[claim.step] != checked.total:
                    difference = f"the total of checkpoint step-{claim.step}, though no recorded step before it differs"
                    break
                confirmed += 1
    seconds = round(time.monotonic() - began, 3)
    num_samples = steps * per_step
    return Audit(
        run.name, steps, num_samples, num_samples * samples.seq_len, unrecorded, confirmed, difference, seconds
    )


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


def _say(step: int, first: int, per_step: int, samples: Any) -> str:
    where = f"step {step} (samples {first:,} to {first + per_step - 1:,}"
    windows = getattr(samples, "window_samples", 0)
    if not windows:
        return f"{where})"
    low, high = first // windows, (first + per_step - 1) // windows
    return f"{where}, window {low}" + (f" to {high})" if high > low else ")")
