"""What the batch script checks on its nodes before the tasks, and what it does about those that are broken. Pure."""

from __future__ import annotations

import shlex
from pathlib import Path

from xgen.cluster.deaths import NODE_DEATHS, SURE_DEATHS
from xgen.spec import Job, Profile

_OWN_SHM = ("docker", "podman")  # their containers do not see the node's


def checks_text() -> str:
    """The checks themselves, which SLURM's hooks run too (slurm/hooks/)."""
    return Path(__file__).with_name("host").joinpath("checks.sh").read_text(encoding="utf-8")


def health_settings(job: Job, profile: Profile, stage: int) -> dict[str, object]:
    """Constants of host/health.sh."""
    nodes, resources = profile.nodes, job.jobs[stage][1]
    return {
        "NUM_NODES": resources.nodes,
        "PARTITION": resources.partition or profile.default_partition,
        "CHECK_LIMIT": job.health.limit,
        "ACT": job.health.act or nodes.act,
        "DEATHS": nodes.deaths,
        "WINDOW": nodes.window,
        "EXCLUDE_FOR": nodes.exclude_for,
        "MOST_PERMILLE": round(nodes.most * 1000),
        "NODE_DEATHS": "\n".join(f"{kind}={pattern}" for kind, pattern in NODE_DEATHS.items()),
        "SURE_DEATHS": " ".join(SURE_DEATHS),
        "EXCLUDED_HERE": "",
    }


def check_lines(job: Job, profile: Profile, stage: int, num_gpus: int) -> list[str]:
    """The call of `check_nodes`, which reads the checks from its standard input."""
    if not job.health.checks:
        return []
    resources = job.jobs[stage][1]
    is_slurm = profile.scheduler == "slurm"  # who gives a job what it asks for
    settings = {
        "CHECKS": " ".join(job.health.checks),
        "CHECK_LIMIT": job.health.limit,
        "NUM_GPUS": num_gpus,
        "GPU_FILES": profile.gpus.devices or "",
        "MEMORY_WANTED": (resources.memory or 0) if is_slurm else 0,
        "SHM_WANTED": (job.container.shm or 0) if profile.container.runtime not in _OWN_SHM else 0,
        "TMP_WANTED": profile.nodes.tmp,
    }
    head = [f"{name}={shlex.quote(str(value))}" for name, value in settings.items()]
    return ["check_nodes <<'END'", *head, checks_text().rstrip("\n"), "run_checks", "END"]
