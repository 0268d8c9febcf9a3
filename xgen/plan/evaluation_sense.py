"""What an evaluation would not find or could not hold, and what a person should know of its scores beforehand."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from xgen.plan.evaluation import evaluated_run, evaluation, holds, saved_steps
from xgen.plan.memory import RESERVE
from xgen.spec import Evaluate, LoadedJob, ModelSpec, Problem, Profile, Trained
from xgen.spec.units import format_bytes, format_length

_LARGE = 500_000_000  # parameters, from where on a processor takes minutes for an answer


def check_evaluation(loaded: LoadedJob, job: Evaluate, profile: Profile, *, stores: bool) -> Iterator[Problem]:
    """`stores` also asks for all that it reads, which a plan does not need."""
    run = evaluated_run(job, profile)
    if stores:
        yield from _missing(loaded, job, profile, run)
    if run:
        yield from _never_saved(loaded, job, run)
        yield from _too_large(loaded, job, profile, run.model)
    samples = evaluation(job, profile).samples
    if not job.harness and job.array.shards > samples:
        yield loaded.problem("array.shards", f"{job.array.shards} have no more than {samples} samples; write {samples}")


def evaluation_warnings(job: Evaluate, profile: Profile) -> Iterator[str]:
    """What is no mistake, and bears on what the scores say or whether they come."""
    run = evaluated_run(job, profile)
    if run is None:
        return
    trained = max(place.stage.seq_len for place in run.places)
    if job.longest > trained:
        longest, most = format_length(job.longest), format_length(trained)
        yield (
            f"samples of {longest} are longer than {most}, what {job.checkpoints.run} is trained at: a score beyond "
            "says how it breaks"
        )
    if not job.resources.gpus_per_node and run.model.num_parameters >= _LARGE:
        yield (
            f"no GPU is asked for, and {run.model.num_parameters:,} parameters on processors take hours for a long "
            "prompt; write resources.gpus_per_node: 1"
        )
    yield from _deleted_too_soon(job, run)
    yield from _seldom_saved(job, run)


def _missing(loaded: LoadedJob, job: Evaluate, profile: Profile, run: Trained | None) -> Iterator[Problem]:
    for key, path in job.reads.items():
        if not Path(path).exists():
            fix = "write `xgen evals fetch SPEC` first" if key == "harness.datasets" else "name what exists"
            yield loaded.problem(key, f"{path} is not there; {fix}")
    if job.cache is not None and not Path(job.cache).parent.is_dir():
        yield loaded.problem("cache", f"{Path(job.cache).parent} is not there; make it first")
    python = job.harness.python if job.harness else None
    if python and profile.container.runtime == "none" and not os.access(python, os.X_OK):
        yield loaded.problem("harness.python", f"{python} is no program; write the interpreter of an environment")
    if job.checkpoints.run is not None and run is None:
        folder = Path(profile.run_root) / job.checkpoints.run
        said = "trained no weights" if (folder / "spec.yaml").is_file() else "is no run directory"
        yield loaded.problem("checkpoints.run", f"{folder} {said}; write the name of a run that trains, or its path")


def _never_saved(loaded: LoadedJob, job: Evaluate, run: Trained) -> Iterator[Problem]:
    last, wanted = run.places[-1].last_step, job.checkpoints
    if after := [step for step in wanted.steps if step > last]:
        yield loaded.problem("checkpoints.steps", f"{after[0]} is after the training's last step; write {last} or less")
    if wanted.first > last:
        yield loaded.problem("checkpoints.first", f"{wanted.first} is after the training's last step; write less")


def _too_large(loaded: LoadedJob, job: Evaluate, profile: Profile, model: ModelSpec) -> Iterator[Problem]:
    """Of the longest sample, where a GPU is asked for."""
    if profile.gpus.memory is None or not job.resources.gpus_per_node or not job.longest:
        return
    limit = profile.gpus.memory * (1 - RESERVE)
    if holds(model, job).total <= limit:
        return
    key, length = max(_lengths(job), key=lambda one: one[1])
    one = job.model_copy(update={"at_once": 1})
    need, room = format_bytes(holds(model, job).total), f"{format_bytes(limit)} of {format_bytes(profile.gpus.memory)}"
    said = f"of {format_length(length)} needs about {need} on a GPU, and {room} are there"
    if holds(model, one).total <= limit:
        more = math.floor((limit - holds(model, one).total) / holds(model, one).cache)
        said = said.replace("needs", "need")
        yield loaded.problem("at_once", f"{job.at_once} samples {said}; write {1 + more}, or 0 for what fits")
        return
    shorter = length
    while shorter > 1024 and holds(model, one, shorter).total > limit:
        shorter //= 2
    fits = holds(model, one, shorter).total <= limit
    fix = f"write {format_length(shorter)} or less, or take larger GPUs" if fits else "take larger GPUs"
    yield loaded.problem(key, f"a sample {said}; {fix}")


def _lengths(job: Evaluate) -> Iterator[tuple[str, int]]:
    for name in ("ruler", "needles", "recall"):
        if suite := getattr(job, name):
            yield f"{name}.lengths", max(suite.lengths)
    for name, one in job.perplexity.items():
        yield f"perplexity.{name}.length", one.length


def _deleted_too_soon(job: Evaluate, run: Trained) -> Iterator[str]:
    """Of a training that is followed: a checkpoint that is wanted and not kept is scored only if that is in time."""
    wanted, kept = job.checkpoints, run.checkpoint
    if not wanted.follow:
        return
    taken = [step for step in saved_steps(run) if wanted.takes(step)]
    ends = {place.last_step for place in run.places}  # each stage's last is kept
    if any(step not in ends and not (kept.keep_every and step % kept.keep_every == 0) for step in taken):
        every = wanted.every if wanted.every and wanted.every > 1 else kept.every
        yield (
            f"{wanted.run} keeps its newest {kept.keep} checkpoints: one that is not scored by then is left out; of "
            f"the next training write checkpoint.keep_every: {every}"
        )


def _seldom_saved(job: Evaluate, run: Trained) -> Iterator[str]:
    """Steps at which the training saves only when it happens to be stopped there."""
    wanted, saved = job.checkpoints, saved_steps(run)
    never = [step for step in wanted.steps if step not in saved]
    if never:
        yield f"checkpoints.steps: {wanted.run} saves every {run.checkpoint.every} steps, and not at {never[0]}"
    every = wanted.every
    if every is not None and every > 1 and run.checkpoint.every % every and every % run.checkpoint.every:
        both = math.lcm(every, run.checkpoint.every)
        yield (
            f"checkpoints.every: {wanted.run} saves every {run.checkpoint.every} steps: of every {every} those of "
            f"every {both} are there"
        )
