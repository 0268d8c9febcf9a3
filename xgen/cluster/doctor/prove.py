"""`xgen doctor --prove-runtime`: one small job that shows whether a container runtime does here what xgen asks of it.

Three runtimes run in xgen's own tests; of the others the text is checked, and only a site can prove the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from xgen.cluster import local, slurm
from xgen.cluster.doctor.finding import Finding, expect
from xgen.cluster.doctor.nodes import SMALL_SHM
from xgen.cluster.doctor.small_job import end_job, has_ended, not_done, start_job, wait_for
from xgen.cluster.render import interpreter
from xgen.runs import RunDir, read_attempt_outcome, read_events
from xgen.spec import Command, Profile
from xgen.spec.units import format_bytes

_VALUES = {"PROOF_WORDS": 'it\'s "two"  words, a=b; $HOME `id` #', "PROOF_EMPTY": "", "PROOF_UNICODE": "größe"}


def proof_job(profile: Profile, image: str | None, nodes: int, partition: str | None) -> Command:
    return Command.model_validate(
        {
            "kind": "command",
            "name": f"prove-{profile.container.runtime}",
            "command": [interpreter(profile), "-m", "xgen.cluster.doctor.prove_task"],
            "resources": {"nodes": nodes, "gpus_per_node": 1, "time": "15m", "partition": partition},
            "lead": "1m",
            "container": {"image": image},
            "env": _VALUES,
            "secrets": {"PROOF_SECRET": {"env": "XGEN_PROOF_SECRET"}},
        }
    )


def prove(
    job: Command, cluster: str, profile: Profile, folder: Path, timeout: float, say: Callable[[str], None]
) -> tuple[RunDir, list[Finding]]:
    """Submit the job, watch it start, stop it by the signal of a preemption, judge. `timeout` is in seconds and covers
    the queue; `folder` is one that holds no code, so that xgen alone is snapshot.

    Raises SpecError and SchedulerError as a submission does.
    """
    secret = secrets.token_hex(16)
    os.environ["XGEN_PROOF_SECRET"] = secret
    try:
        began = time.time()
        run, job_id = start_job(job, cluster, profile, folder)
    finally:
        del os.environ["XGEN_PROOF_SECRET"]
    say(f"{run.name} is job {job_id}; waiting for it to start, at most {timeout:.0f} s")
    deadline = time.monotonic() + timeout
    ranks = range(job.resources.world_size)
    try:
        files = [run.path / f"seen.{rank}.json" for rank in ranks]
        wait_for(lambda: all(f.exists() for f in files) or has_ended(run), deadline)
        started = [f for f in files if f.exists()]
        if len(started) < len(files):
            return run, [not_done("start", run, len(started), len(files))]
        facts = [json.loads(f.read_text()) for f in files]
        say("it runs; sending it the stop signal")
        asked = time.monotonic()
        _signal(run, job_id, profile)
        wait_for(lambda: read_attempt_outcome(run, 1), min(deadline, asked + 120))
        findings = list(judge(facts, secret, profile, run, began))
        findings.append(_stop_finding(run, time.monotonic() - asked))
        return run, findings
    finally:
        end_job(run, profile)


def judge(facts: list[dict[str, Any]], secret: str, profile: Profile, run: RunDir, began: float) -> Iterator[Finding]:
    """What the ranks saw, against what they should have. Pure but for the events that say when they started."""
    ready = next((e.time for e in read_events(run) if e.event == "container_ready"), began)
    attempt = next((e.time for e in read_events(run) if e.event == "started"), began)
    nodes = sorted({fact["node"] for fact in facts})
    yield Finding("start", "ok", f"{len(facts)} ranks on {', '.join(nodes)}, {ready - attempt:.1f} s after the job")
    runtime = profile.container.runtime

    arrived = [fact["environment"] for fact in facts]
    wrong = sorted({name for env in arrived for name, value in _VALUES.items() if env.get(name) != value})
    yield expect(
        "environment", not wrong, f"not as written: {', '.join(wrong)}" if wrong else "values arrive as written",
        f"report it with the output of xgen submit --dry-run --runtime {runtime}",
    )  # fmt: skip
    told = hashlib.sha256(secret.encode()).hexdigest()
    yield expect(
        "secret", all(f["secret"] == told for f in facts), "reached the tasks, sealed on the way",
        "the image needs the package cryptography",
    )  # fmt: skip
    yield expect(
        "code", all(f["code_is_the_snapshot"] for f in facts), "the snapshot is what runs",
        "the image brings an xgen of its own that is found first; remove it",
    )  # fmt: skip
    if runtime != "none":
        not_code = "" if any(f["can_write_code"] for f in facts) else "not"
        not_image = "" if any(f["can_write_system"] for f in facts) else "not"
        yield expect(
            "read-only code", bool(not_code), f"the job can{not_code} write to it",
            "this runtime mounts for writing; the files themselves are read-only to all but root", "warning",
        )  # fmt: skip
        yield expect(
            "read-only image", bool(not_image), f"the job can{not_image} write to it",
            "changes are lost or, worse, shared; ask for read-only containers", "warning",
        )  # fmt: skip
    yield expect(
        "run directory", all(f["can_write_run"] for f in facts), "every rank can write to it",
        f"run_root {run.path.parent} must be on every node, writable for the user in the container",
    )  # fmt: skip
    yield expect(
        "home", all(f["home_is_writable"] for f in facts), "caches have a place", "no folder of /tmp is writable"
    )
    yield expect(
        "rendezvous", all(f["met"] == len(facts) for f in facts), f"{len(facts)} ranks met over TCP",
        "containers must share the host's network, and MASTER_ADDR be reachable from every node",
    )  # fmt: skip
    smallest = min(f["shm_bytes"] for f in facts)
    yield expect(
        "/dev/shm", smallest >= SMALL_SHM, format_bytes(smallest),
        "NCCL and data loaders need some GB; have it enlarged on the nodes", "warning",
    )  # fmt: skip
    if profile.gpus.request != "none" and profile.gpus.devices is None:
        found = [len(f["gpus"]) for f in facts]
        yield expect(
            "GPUs", set(found) == {1}, f"{', '.join(map(str, found))} seen by the ranks, 1 granted on each node",
            "fewer: the runtime passes none on; more: SLURM does not constrain devices (ConstrainDevices=yes)",
        )  # fmt: skip
    if profile.container.devices:
        yield expect(
            "InfiniBand", all(f["infiniband"] and f["memlock"] == "unlimited" for f in facts),
            f"{len(facts[0]['infiniband'])} devices, locked memory {facts[0]['memlock']}",
            "set LimitMEMLOCK=infinity for slurmd, and check container.devices of the profile",
        )  # fmt: skip


def _stop_finding(run: RunDir, seconds: float) -> Finding:
    outcome = read_attempt_outcome(run, 1)
    if outcome is None:
        return Finding("signal", "failed", "no rank stopped within 120 s", "SIGUSR2 does not reach the container")
    if outcome.reason != "saved and stopped on request":  # the batch script's word when every rank answered
        return Finding("signal", "failed", f"{outcome.status}: {outcome.reason}", "see err.log of the attempt")
    return Finding("signal", "ok", f"every rank stopped when told, {seconds:.1f} s after the signal")


def _signal(run: RunDir, job_id: str, profile: Profile) -> None:
    if profile.scheduler == "local":
        local.send(run, signal.SIGUSR2)
    else:
        slurm.command("scancel", "--signal=USR2", job_id)  # to the steps, as a preemption sends it
