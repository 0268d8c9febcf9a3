"""`xgen doctor --network`: an all-reduce between nodes as a job of its own, and its bandwidth against the floor."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xgen.cluster.doctor.finding import Finding
from xgen.cluster.doctor.small_job import end_job, has_ended, not_done, start_job, wait_for
from xgen.cluster.render import interpreter
from xgen.runs import RunDir
from xgen.spec import Command, Profile
from xgen.spec.units import format_bytes

_MEMORY = 4  # GB of a rank: torch, with the libraries of CUDA and NCCL


def network_job(profile: Profile, image: str | None, nodes: int, gpus: int, partition: str | None) -> Command:
    return Command.model_validate(
        {
            "kind": "command",
            "name": "network",
            "command": [interpreter(profile), "-m", "xgen.train.network"],
            "resources": {
                "nodes": nodes,
                "gpus_per_node": gpus,
                "memory": f"{_MEMORY * max(1, gpus)}GB",
                "time": "15m",
                "partition": partition,
            },
            "lead": "1m",
            "container": {"image": image},
        }
    )


def measure(
    job: Command, cluster: str, profile: Profile, folder: Path, timeout: float, say: Callable[[str], None]
) -> tuple[RunDir, list[Finding]]:
    """`timeout` is in seconds and covers the queue; `folder` is one that holds no code. Raises SpecError and
    SchedulerError as a submission does."""
    run, job_id = start_job(job, cluster, profile, folder)
    say(f"{run.name} is job {job_id}: an all-reduce over {job.resources.world_size} ranks, at most {timeout:.0f} s")
    file = run.path / "network.json"
    try:
        wait_for(lambda: file.exists() or has_ended(run), time.monotonic() + timeout)
        if not file.exists():
            return run, [not_done("bandwidth", run, 0, job.resources.world_size)]
        wait_for(lambda: has_ended(run), time.monotonic() + 30)
        return run, list(judge_network(json.loads(file.read_text()), profile))
    finally:
        end_job(run, profile)


def judge_network(measured: Mapping[str, Any], profile: Profile) -> Iterator[Finding]:
    """Of what rank 0 has written: see xgen/train/network.py."""
    found, floor = measured["bandwidth"], profile.nodes.bandwidth
    said = f"{format_bytes(found)}/s of the bus over {measured['ranks']} ranks on {', '.join(measured['nodes'])}"
    said += f", by {measured['backend']}"
    if floor is not None and found < floor:
        said += f"; the floor is {format_bytes(floor)}/s; {measured['slowest']}"
        fix = "see which interface NCCL took (NCCL_DEBUG=INFO), or profile: nodes.bandwidth: less"
        yield Finding("bandwidth", "failed", said, fix)
    elif floor is None:
        yield Finding(
            "bandwidth", "ok", f"{said}; profile: nodes.bandwidth: {format_bytes(found * 0.7)} would be a floor"
        )
    else:
        yield Finding("bandwidth", "ok", f"{said}; the floor is {format_bytes(floor)}/s")
