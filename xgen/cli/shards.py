"""The shards of job arrays, as the commands show them and as people name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xgen.cli.common import usage

if TYPE_CHECKING:
    from xgen.cluster.status import QueueView, ShardsStatus
    from xgen.runs import RunDir
    from xgen.spec import Array, Job

_MOST_SHOWN = 10  # of the shards that are given up, in the text; --json has all


def arrays_of(job: Job) -> dict[str, Array]:
    """The stages of a job that are job arrays; the only one of a `command` has no name."""
    stages = ((name, job.array_of(stage)) for stage, (name, _) in enumerate(job.jobs))
    return {name: array for name, array in stages if array}


def first_shard(job: Job) -> str:
    """What `--shard` calls the first shard of a job whose first stage is a job array; '' where that has one log."""
    arrays = arrays_of(job)
    if job.array_of(0) is None or job.serves(0):
        return ""
    return "0" if len(arrays) == 1 else f"{next(iter(arrays))}/0"


def describe_array(array: Array) -> str:
    return f"{array.shards} shards" + (f", {array.at_once} at once" if array.at_once else "")


def ask_shards(run: RunDir, view: QueueView) -> list[ShardsStatus]:
    """Of each stage that is a job array."""
    from xgen.cluster.status import shards_status
    from xgen.spec import load_resolved

    if not run.shards_dir.is_dir():  # and then the spec need not be read
        return []
    return shards_status(run, load_resolved(run.spec_file), view)


def shards_facts(run: RunDir, shards: ShardsStatus) -> dict[str, object]:
    """What `xgen status --json` says of a stage."""
    from xgen.runs.shards import why_given_up

    stage = shards.stage
    return {
        "stage": stage or None,
        "total": shards.total,
        "at_once": shards.at_once or None,
        "finished": len(shards.finished),
        "running": shards.running,
        "waiting": shards.num_waiting,
        "given_up": [
            {"shard": number, "reason": why_given_up(run, stage, number), "path": run.shard(stage, number).path}
            for number in shards.given_up
        ],
    }


def worth_saying(found: list[ShardsStatus]) -> list[ShardsStatus]:
    """Not of a stage that the run has not come to yet, unless there is no other."""
    return [one for one in found if one.has_begun] or found[:1]


def count_shards(shards: ShardsStatus) -> str:
    counts = ((len(shards.running), "running"), (shards.num_waiting, "waiting"), (len(shards.given_up), "given up"))
    said = [f"{len(shards.finished)} of {shards.total} shards done", *(f"{n} {what}" for n, what in counts if n)]
    return (f"stage {shards.stage}: " if shards.stage else "") + ", ".join(said)


def shards_lines(run: RunDir, shards: ShardsStatus) -> list[str]:
    """How many shards of a stage are how far, and those that are given up, with what shows their log."""
    from xgen.runs.shards import why_given_up

    lines = [count_shards(shards)]
    for number in shards.given_up[:_MOST_SHOWN]:
        name = f"{shards.stage}/{number}" if shards.stage else str(number)
        lines.append(f"  shard {number} given up: {why_given_up(run, shards.stage, number)}")
        lines.append(f"    xgen logs {run.name} --shard {name}")
    if (more := len(shards.given_up) - _MOST_SHOWN) > 0:
        lines.append(f"  and {more} more: xgen status {run.name} --json")
    return lines


def find_shard(run: RunDir, text: str) -> tuple[str, int]:
    """Stage and number of the shard that `--shard` names: N, or STAGE/N where several stages are arrays. Leaves with
    exit code 2 where there is none."""
    from xgen.spec import load_resolved

    arrays = arrays_of(load_resolved(run.spec_file))
    if not arrays:
        usage(f"--shard: {run.name} is no job array; write xgen logs {run.name}")
    stage, slash, number = text.rpartition("/")
    if (slash and stage not in arrays) or (not slash and len(arrays) > 1):
        usage(f"--shard: {text!r} names no stage of {run.name} with shards; {how_to_name(run, arrays)}")
    stage = stage if slash else next(iter(arrays))
    if not number.isdecimal() or int(number) >= arrays[stage].shards:
        usage(f"--shard: {text!r} is no shard of {run.name}; {how_to_name(run, arrays)}")
    return stage, int(number)


def how_to_name(run: RunDir, arrays: dict[str, Array], command: str = "logs") -> str:
    names = [
        f"{stage}/N, 0 to {array.shards - 1}" if len(arrays) > 1 else f"N, 0 to {array.shards - 1}"
        for stage, array in arrays.items()
    ]
    return f"write xgen {command} {run.name} --shard {' or '.join(names)}"
