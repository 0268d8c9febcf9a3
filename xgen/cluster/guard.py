"""The guard job of a run that asks for one: a small job that waits for the bad end of the run's, and settles it
(host/guard.sh). Bash only, as all that decides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xgen.cluster.asked import Clock, new_key, submit_keyed
from xgen.cluster.render import NO_TOKEN, library
from xgen.runs import RunDir, write_atomic
from xgen.spec import Job, Profile

_ROOM = Path(__file__).with_name("host") / "guard.sh"


def guard_script(job: Job, profile: Profile, run: RunDir, stage: int, job_id: str) -> str:
    """The batch script of the guard of a stage's job. Pure."""
    resources, account = job.jobs[stage][1], profile.account_of(job.project)
    options = [
        f"job-name={run.name}.guard",
        f"partition={resources.partition or profile.default_partition}",
        "nodes=1",
        "ntasks=1",
        "mem=100M",
        "time=15",
        f"output={run.attempts_dir}/guard-%j.log",
        f"chdir={run.path}",
        "export=ALL",
        f"dependency=afternotok:{job_id}",
        "kill-on-invalid-dep=yes",
        *([f"account={account}"] if account is not None else []),
    ]
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH --{option}" for option in options),
            "# shellcheck disable=SC2317 # most of the functions are the batch script's",
            NO_TOKEN,
            library(job, profile, run, stage),
            _ROOM.read_text(encoding="utf-8"),
            "guard",
            "",
        ]
    )


def submit_guard(
    run: RunDir,
    job: Job,
    profile: Profile,
    stage: int,
    job_id: str,
    environment: Mapping[str, str],
    clock: Clock | None = None,
) -> None:
    """Once, as any submission; a guard whose client died before it was noted finds that the run goes on, or settles it.
    Raises SchedulerError."""
    script = guard_script(job, profile, run, stage, job_id)
    write_atomic(run.job_file(stage).with_suffix(".guard.sh"), script)  # the next guard runs it too
    guard = submit_keyed(
        f"{run.name}.guard", new_key(), script, run.path / "submissions", 1, environment, f"guard:{run.name}", clock
    )
    write_atomic(run.job_file(stage).with_suffix(".guard"), f"{guard}\n")
