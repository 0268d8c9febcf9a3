"""`xgen plan`: the numbers of a spec, before anything is submitted."""

from __future__ import annotations

from xgen.cli.common import (
    ClusterOption,
    JsonOption,
    RuntimeOption,
    SetOption,
    SpecArgument,
    check_mixture,
    load_checked,
    print_json,
)


def command(
    spec: SpecArgument,
    cluster: ClusterOption = None,
    overrides: SetOption = None,
    runtime: RuntimeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print parameters, steps, FLOPs, time, checkpoint size, and what a stop needs and gets."""
    loaded, name, profile = load_checked(spec, overrides, cluster, runtime)

    from xgen.plan import STOP_MARGIN, plan, warnings
    from xgen.spec.units import format_bytes, format_duration

    numbers = plan(loaded.job, profile)
    notes = warnings(loaded, profile)
    mixture = check_mixture(loaded.job)
    if as_json:
        print_json({"name": loaded.job.name, "cluster": name, "plan": numbers, "mixture": mixture, "warnings": notes})
        return
    resources = loaded.job.resources
    print(f"{loaded.job.name} on {name}: {resources.nodes} nodes x {resources.gpus_per_node} tasks")
    if numbers.num_steps:
        print(f"  parameters  {numbers.num_parameters:,}")
        print(f"  steps       {numbers.num_steps:,} of {numbers.tokens // numbers.num_steps:,} tokens")
        print(f"  tokens      {numbers.tokens:,}")
        print(f"  compute     {numbers.flops:.3g} FLOP, {numbers.gpu_hours:,.3g} GPU-hours")
        print(
            f"  time        {format_duration(numbers.train_seconds)} of training, "
            f"{numbers.step_seconds:.2g} s a step at MFU {profile.gpus.mfu:g}"
        )
        print(
            f"  checkpoint  {format_bytes(numbers.checkpoint_bytes)}, saved in {numbers.save_seconds:.1f} s; "
            f"a kill without warning loses {format_duration(numbers.lost_seconds)} on average"
        )
        print(
            f"  stop        needs {numbers.stop_seconds:.1f} s (step, save, margin {STOP_MARGIN:.0f} s), "
            f"gets {numbers.stop_budget:.0f} s"
        )
    for part in mixture:
        print(
            f"  data        {part['name']:<16} {part['share']:>6.1%} {part['tokens']:>16,} tokens, "
            f"{part['epochs']:.2f} epochs of {part['has']:,}"
        )
    for note in notes:
        print(f"  warning     {note}")
