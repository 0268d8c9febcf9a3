"""`xgen plan`: the numbers of a spec, before anything is submitted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xgen.cli.common import (
    ClusterOption,
    JsonOption,
    RuntimeOption,
    SetOption,
    SpecArgument,
    check_mixture,
    load_checked,
    print_json,
    usage,
)

if TYPE_CHECKING:
    from xgen.plan import Plan
    from xgen.spec import Array, Profile, Resources


def command(
    spec: SpecArgument,
    cluster: ClusterOption = None,
    overrides: SetOption = None,
    runtime: RuntimeOption = None,
    mttf: Annotated[
        str | None,
        typer.Option(
            "--mttf", metavar="TIME", help="Mean time between failures of the job, e.g. 8h. Default: as Llama 3 saw it."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print parameters, steps, FLOPs, time, memory, checkpoints, and what a stop needs and gets, for each stage."""
    from xgen.spec.pipeline_load import is_pipeline

    if is_pipeline(spec):
        from xgen.cli.pipeline_show import plan_pipeline

        if mttf:
            usage("--mttf: of a pipeline, ask each step's own spec")
        plan_pipeline(spec, cluster, overrides or [], runtime, as_json=as_json)
        return
    loaded, name, profile = load_checked(spec, overrides, cluster, runtime, stores=False)

    from xgen.plan import missing_stores, plans, warnings
    from xgen.spec.units import parse_duration

    try:
        seconds = None if mttf is None else float(parse_duration(mttf))
    except ValueError as error:
        usage(f"--mttf: {error}")
    if seconds == 0:
        usage(f"--mttf: {mttf} is no time between failures; write e.g. 8h")
    numbers = plans(loaded.job, profile, seconds)
    missing = missing_stores(loaded)
    notes = warnings(loaded, profile) + [str(problem) for problem in missing]
    mixture = [] if missing else check_mixture(loaded.job)
    if as_json:
        stages = [_facts(one, profile) for one in numbers]
        print_json({"name": loaded.job.name, "cluster": name, "stages": stages, "mixture": mixture, "warnings": notes})
        return
    print(f"{loaded.job.name} on {name}")
    for stage, (one, (_, resources)) in enumerate(zip(numbers, loaded.job.jobs, strict=True)):
        parts = [part for part in mixture if part["stage"] == one.stage]
        _show(one, resources, loaded.job.array_of(stage), profile, parts)
    if len(numbers) > 1:
        hours = sum(one.gpu_hours * one.num_runs for one in numbers)
        tokens = sum(one.tokens * one.num_runs for one in numbers if one.num_trained)
        if not any(one.evaluation for one in numbers):
            print(f"  all: {tokens:,} tokens, {hours:,.3g} GPU-hours")
    for note in notes:
        print(f"  warning     {note}")


def _facts(numbers: Plan, profile: Profile) -> dict[str, Any]:
    """A plan with what follows from it; work that trains nothing has one stage without a name."""
    from dataclasses import asdict

    facts = asdict(numbers) | {"tokens_per_second": numbers.tokens_per_second}
    if one := numbers.evaluation:
        facts["evaluation"] |= {"samples": one.samples, "tokens": one.tokens, "flops": one.flops}
        for part, told in zip(one.parts, facts["evaluation"]["parts"], strict=True):
            told["gpu_hours"] = part.seconds(profile) / 3600
    if numbers.memory:
        sums = {"state": numbers.memory.state, "total": numbers.memory.total}
        facts["memory"] |= sums | {"of_gpu": profile.gpus.memory}
    return facts


def _scoring(numbers: Plan, profile: Profile) -> Iterator[str]:
    """Of an evaluation: what a checkpoint takes, then all of them, then by suite and length."""
    from itertools import groupby

    from xgen.plan.tuned import GENERATION_MFU
    from xgen.spec.units import format_bytes, format_duration, format_length

    one = numbers.evaluation
    assert one is not None
    written = sum(part.answer_tokens for part in one.parts)
    answers = f", {written:,} of them for answers" if written else ""
    yield f"samples     {one.samples:,} of a checkpoint, {one.tokens:,} tokens at most{answers}"
    if one.flops:
        yield (
            f"time        {format_duration(one.seconds)} and {_hours(one.gpu_hours)} GPU-hours for a checkpoint, "
            f"{one.flops:.3g} FLOP at MFU {numbers.mfu:g}{f', of answers {GENERATION_MFU:g}' if written else ''}"
        )
        if (times := one.num_checkpoints) and times > 1:
            took = format_duration(numbers.train_seconds)
            yield f"checkpoints {times} at most, as the training saves: {took}, {_hours(numbers.gpu_hours)} GPU-hours"
    elif one.parts:
        yield "time        not known without the run that is scored, which has the model"
    for suite, parts in groupby(one.parts, lambda part: part.suite):
        each = (
            f"{format_length(part.length)} "
            + (_hours(part.seconds(profile) / 3600) if one.flops else f"{part.samples:,}")
            for part in parts
        )
        yield f"{suite:<11} {', '.join(each)} {'GPU-hours' if one.flops else 'samples'}"
    if one.has_harness:
        yield "harness     not counted: it depends on its data sets"
    if held := one.holding:
        sizes = {"weights": held.weights, "keys and values": held.cache, "working": held.working}
        said = ", ".join(f"{name} {format_bytes(size)}" for name, size in sizes.items() if size >= 2**20)
        room = f" of {format_bytes(profile.gpus.memory)}" if profile.gpus.memory else ""
        yield f"memory      about {format_bytes(held.total)}{room} a GPU for the longest sample: {said}"


def _hours(count: float) -> str:
    return f"{count:.2g}" if count < 10 else f"{count:,.0f}"


def _show(
    numbers: Plan, resources: Resources, array: Array | None, profile: Profile, mixture: list[dict[str, Any]]
) -> None:
    from xgen.cli.shards import describe_array
    from xgen.plan import STOP_MARGIN, cost
    from xgen.plan.tuned import GENERATION_MFU
    from xgen.spec.units import format_bytes, format_duration

    head = f"{numbers.stage}: " if numbers.stage else ""
    shards = f"{describe_array(array)}, each " if array else ""
    print(f"  {head}{shards}{resources.nodes} nodes x {resources.tasks_per_node} tasks")
    if numbers.num_steps:
        if numbers.num_runs > 1:
            print(f"  {numbers.stage or 'points':<11} {cost(numbers)}; each:")
        fewer = 0 < numbers.num_trained < numbers.num_parameters
        trained = f", frozen; {numbers.num_trained:,} more in adapters are trained" if fewer else ""
        print(f"  parameters  {numbers.num_parameters:,}{trained}")
        print(f"  steps       {numbers.num_steps:,} of {numbers.tokens // numbers.num_steps:,} tokens")
        print(f"  tokens      {numbers.tokens:,}")
        print(f"  compute     {numbers.flops:.3g} FLOP, {numbers.gpu_hours:,.3g} GPU-hours")
        rate = f"{numbers.tokens_per_second:,.0f} tokens/s"
        work = "training" if numbers.num_trained else "computing"
        generated = (
            f", {numbers.generate_seconds:.2g} s of it answers, at MFU {GENERATION_MFU:g}"
            if numbers.generate_seconds
            else ""
        )
        print(
            f"  time        {format_duration(numbers.train_seconds)} of {work}, "
            f"{numbers.step_seconds:.2g} s a step at MFU {numbers.mfu:g}{generated}, {rate}"
        )
        if numbers.memory:
            sizes = {"weights, gradients and moments": numbers.memory.state, **vars(numbers.memory)}
            parts = ", ".join(
                f"{part.replace('_', ' ')} {format_bytes(size)}"
                for part, size in sizes.items()
                if part not in ("moment", "parameters") and size >= 2**20
            )
            room = f" of {format_bytes(profile.gpus.memory)}" if profile.gpus.memory else ""
            total, moment = format_bytes(numbers.memory.total), numbers.memory.moment
            print(f"  memory      about {total}{room} a GPU in the {moment}: {parts}")
    if numbers.evaluation:
        for line in _scoring(numbers, profile):
            print(f"  {line}")
    if numbers.checkpoint_bytes:
        print(
            f"  checkpoint  {format_bytes(numbers.checkpoint_bytes)}, saved in {numbers.save_seconds:.1f} s; "
            f"a kill without warning loses {format_duration(numbers.lost_seconds)} on average"
        )
        if numbers.saving:
            saving = numbers.saving
            print(
                f"  failures    one in {format_duration(saving.mttf)}: best saved every {saving.every:,} steps "
                f"({format_duration(saving.interval)}), for an effective training time ratio of {saving.ettr:.1%}"
            )
        batch = "a batch of validation, " if numbers.validation_seconds else ""
        print(
            f"  stop        needs {numbers.stop_seconds:.1f} s (two steps, two saves, {batch}margin "
            f"{STOP_MARGIN:.0f} s), gets {numbers.stop_budget:.0f} s"
        )
    for part in mixture:
        if "drawn" in part:
            low, high = part["drawn"]
            said = f"{part['share']:>6.1%} of the corpus, {low:.1%} to {high:.1%} of a proxy"
            print(f"  data        {part['name']:<16} {said}")
            continue
        print(
            f"  data        {part['name']:<16} {part['share']:>6.1%} {part['tokens']:>16,} tokens, "
            f"{part['epochs']:.2f} epochs of {part['has']:,}"
        )
