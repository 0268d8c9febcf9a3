"""`make pipeline`: all of the tiny seed in one submission, once undisturbed and once preempted at random moments.

Then come what was to be shown, and where the report lies. Everything is real: SLURM, the preemption, the training.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from demo import ROOT, DemoError, ask_to_preempt, bring_up, failed, headline, last_step, xgen

from xgen.cli.common import find_run
from xgen.cluster.pipeline import Record, read_record, step_run
from xgen.cluster.pipeline_state import step_states, summary
from xgen.cluster.status import ask_slurm, ask_state
from xgen.evals.records import steps_of
from xgen.evals.report import Results
from xgen.runs import Attempt, RunDir, read_attempt_outcome, read_events, replay
from xgen.runs.origin import read_beginning
from xgen.spec import Pretrain, load_resolved

SPEC = "jobs/tiny/pipeline.yaml"
TIMES = 2  # that the nodes of each step are taken, at random moments of its first four fifths
LONG = 20.0  # seconds; what takes less may be over before it is preempted
LIMIT = 3600.0  # seconds that a pipeline takes at most, on a machine that does much else


def main() -> int:
    """Exit code: 0 where all that was to be shown is so."""
    parser = argparse.ArgumentParser(prog="python jobs/tiny/pipeline.py", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments; default: %(default)s")
    parser.add_argument("--cluster", metavar="NAME", help="default: dev, brought up here; local without SLURM")
    parser.add_argument("--undisturbed", metavar="RUN", help="to compare with; default: one that is made now")
    options = parser.parse_args()
    os.chdir(ROOT)
    try:
        cluster = options.cluster or bring_up()
        if options.undisturbed:
            calm = Pipeline.of(find_run(options.undisturbed, cluster))
        else:
            headline("the pipeline, undisturbed")
            calm = run_through(cluster)
        headline("the pipeline, and somebody with more rights who needs the nodes now and then")
        drawn = random.Random(options.seed)
        moments = {
            step: sorted(drawn.uniform(0, 0.8) * worked(run) for _ in range(TIMES)) for step, run in calm.steps.items()
        }
        disturbed = run_through(cluster, moments)
        shown = verdict(disturbed, calm)
    except (DemoError, subprocess.SubprocessError) as error:
        return failed("pipeline", error)
    print(f"\nLook around: xgen status {disturbed.run.name} --cluster {cluster}")
    return 0 if shown else 1


@dataclass(frozen=True)
class Pipeline:
    """A pipeline's run, and those of its steps in order."""

    run: RunDir
    record: Record
    steps: dict[str, RunDir]

    @classmethod
    def of(cls, run: RunDir) -> Pipeline:
        record = read_record(run)
        if record is None:
            raise DemoError(f"{run.name} is no pipeline")
        return cls(run, record, {step: step_run(run, record, step) for step in record.steps})

    def seconds(self) -> float:
        """From the submission to the end of the last step."""
        times = [event.time for run in self.steps.values() for event in read_events(run)]
        return max(times) - min(times)


def run_through(cluster: str, moments: dict[str, list[float]] | None = None) -> Pipeline:
    """Submit it and follow it to its end. `moments`: seconds of work after which each step is preempted."""
    print(f"$ xgen submit {SPEC} --cluster {cluster}")
    one = Pipeline.of(RunDir(Path(xgen("submit", SPEC, "--cluster", cluster)["path"])))
    print(f"  {one.run.name}")
    began = before = time.monotonic()
    said, work = dict[str, str](), defaultdict[str, float](float)
    while (now := time.monotonic()) < began + LIMIT:
        states = step_states(one.run, one.record, ask_slurm([one.run]), ask_state)
        for state in states:
            if state.state != said.get(state.step, "pending"):
                print(f"  {now - began:4.0f} s  {state.step}: {state.state}", flush=True)
            said[state.step] = state.state
        whole, reason = summary(states, one.run)
        if whole not in ("pending", "running", "unknown"):
            break
        running = next((state.step for state in states if state.state == "running"), None)
        if moments and running:
            work[running] += now - before
            if moments[running] and work[running] >= moments[running][0]:
                del moments[running][0]
                ask_to_preempt(one.steps[running], cluster)
        before = now
        time.sleep(1)
    else:
        raise DemoError(f"{one.run.name} did not end within {LIMIT:.0f} s: see xgen status {one.run.name}")
    if whole != "finished":
        raise DemoError(f"{one.run.name} is {whole}: {reason}; see xgen why {one.run.name}")
    return one


def verdict(disturbed: Pipeline, calm: Pipeline) -> bool:
    """Print what was to be shown; whether all of it was."""
    headline(f"what {disturbed.run.name} has found")
    print(f"  {calm.seconds():.0f} s undisturbed, {disturbed.seconds():.0f} s preempted")
    print("  step      undisturbed  preempted  attempts that were")
    for step, run in disturbed.steps.items():
        print(f"  {step:<9} {worked(calm.steps[step]):9.0f} s {worked(run):8.0f} s  {preempted(run)}")
    spared = [name for name, run in disturbed.steps.items() if worked(calm.steps[name]) > LONG and not preempted(run)]
    twice = [f"{run.name} {said}" for run in disturbed.steps.values() for said in overlaps(run)]
    early = [
        f"{b.name} before {a.name} had ended" for a, b in pairwise(disturbed.steps.values()) if begins(b) < ends(a)
    ]
    report = disturbed.steps["evaluate"].evaluation_dir / "report"
    return all(
        [
            told(not spared, f"every step of more than {LONG:.0f} s was preempted", f"never preempted: {spared}"),
            told(not twice and not early, "nothing ran twice at once, or before its turn", f"{twice} {early}"),
            *values(disturbed),
            *equal(disturbed, calm),
            told(is_complete(disturbed), f"the report is complete: {report}", f"the report is not complete: {report}"),
        ]
    )


def told(holds: bool, claim: str, otherwise: str) -> bool:
    print(f"  {'yes' if holds else 'NO'}: {claim if holds else otherwise}")
    return holds


def parts(run: RunDir) -> list[RunDir]:
    """The run, and the shards of its job arrays."""
    return [run, *(RunDir(path) for path in sorted(run.shards_dir.glob("*/[0-9]*")))]


def attempts(run: RunDir) -> list[Attempt]:
    return [attempt for part in parts(run) for attempt in replay(read_events(part)).attempts]


def begins(run: RunDir) -> float:
    return min(attempt.started for attempt in attempts(run))


def ends(run: RunDir) -> float:
    return max(event.time for event in read_events(run))


def worked(run: RunDir) -> float:
    return ends(run) - begins(run)


def preempted(run: RunDir) -> int:
    """Attempts, of the run and its shards, that were told to stop."""
    numbered = ((part, number) for part in parts(run) for number in range(1, part.last_attempt() + 1))
    outcomes = [read_attempt_outcome(*one) for one in numbered]
    return sum(outcome is not None and outcome.status == "stopped" for outcome in outcomes)


def overlaps(run: RunDir) -> Iterator[str]:
    """Attempts that began before the one before had ended."""
    for part in parts(run):
        for before, after in pairwise(replay(read_events(part)).attempts):
            if not before.ended or after.started < before.ended:
                yield f"attempt {after.number} began while {before.number} ran"


def values(one: Pipeline) -> Iterator[bool]:
    """Whether each step has had what the one before has made."""
    made, trained = one.steps["curate"].path / "corpus", load_resolved(one.steps["pretrain"].spec_file)
    assert isinstance(trained, Pretrain)
    stores = [Path(folder) for folder in trained.data.folders.values()]
    yield told(all(store.parent == made for store in stores), "pretrain read what curate made", f"it read {stores}")
    for before, after in pairwise(("pretrain", "sft", "dpo", "rl")):
        source, wanted = read_beginning(one.steps[after]), f"{one.steps[before].name}@{last_step(one.steps[before])[0]}"
        yield told(str(source) == wanted, f"{after} began with {before}'s last step", f"{after} began with {source}")
    scored, last = steps_of(one.steps["evaluate"]), last_step(one.steps["rl"])[0]
    yield told(scored == [last], f"evaluate scored rl's last step, {last}", f"evaluate scored {scored}, not {last}")


def equal(one: Pipeline, other: Pipeline) -> Iterator[bool]:
    """Whether each step has come to the same as undisturbed."""
    from xgen.train.compare import compare_checkpoints

    mine, theirs = (stores(each.steps["curate"]) for each in (one, other))
    yield told(mine == theirs, f"the {len(mine)} stores are equal", f"the stores differ: {mine} {theirs}")
    for step in ("pretrain", "sft", "dpo", "rl"):
        runs = one.steps[step], other.steps[step]
        final = f"step-{last_step(runs[1])[0]}"
        count, unequal = compare_checkpoints(*(run.checkpoints_dir / final for run in runs))
        said = f"{step}: final checkpoints are equal in every tensor: {count} entries"
        yield told(not unequal, said, f"{step}: the final checkpoints differ in {unequal[:3]}")
    scores, others = (results(each).checkpoints for each in (one, other))
    yield told(scores == others, "the scores are equal", "the scores differ")


def stores(run: RunDir) -> dict[str, str]:
    """The fingerprint of each store of a corpus."""
    found: dict[str, str] = json.loads((run.path / "corpus/manifest.json").read_text())["stores"]
    return found


def results(one: Pipeline) -> Results:
    return Results.model_validate_json((one.steps["evaluate"].evaluation_dir / "report/results.json").read_bytes())


def is_complete(one: Pipeline) -> bool:
    """Every sample of every suite, and a page with all pictures that it refers to."""
    found, folder = results(one), one.steps["evaluate"].evaluation_dir / "report"
    (scored,) = found.checkpoints
    pictures = re.findall(r"!\[.*\]\((.*)\)", (folder / "results.md").read_text())
    there = all((folder / name).is_file() for name in pictures)
    return scored.complete and scored.done.keys() == found.wanted.keys() and bool(pictures) and there


if __name__ == "__main__":
    sys.exit(main())
