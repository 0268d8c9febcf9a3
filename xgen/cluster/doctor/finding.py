"""What `xgen doctor` says of one thing that it has looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "warning", "failed"]

# Each has a row in docs/doctor.md.
What = Literal[
    "spec",
    # What SLURM says of itself.
    "partition", "time limit", "preemption signal", "preemption mode", "requeue", "grace", "kill wait", "GPU request",
    "GPU isolation", "node size", "job array", "accounting", "private data",
    # The run root as this machine sees it.
    "run root", "room", "file locks",
    # --on-node.
    "nodes", "shared run root", "shared locks", "runtime", "user namespaces", "image", "mounts", "inputs",
    "interpreter", "/dev/shm", "clock", "network interface", "GPUs", "node health",
    # --network.
    "bandwidth",
    # --prove-runtime.
    "start", "environment", "secret", "code", "read-only code", "read-only image", "run directory", "home",
    "rendezvous", "InfiniBand", "signal",
]  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `fix` says what to do about a failure, or what a warning means: the line to change
    first."""

    what: What
    severity: Severity
    evidence: str
    fix: str = ""


def expect(what: What, good: bool, evidence: str, fix: str, otherwise: Severity = "failed") -> Finding:
    return Finding(what, "ok" if good else otherwise, evidence, "" if good else fix)
