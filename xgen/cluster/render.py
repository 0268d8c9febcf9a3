"""The one renderer: spec and profile in, the whole text of the batch script out. Pure."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from xgen.cluster.runtimes import RUNTIMES, all_mounts, image_path
from xgen.runs import RunDir
from xgen.spec import Job, Profile

SIGNAL = "USR2"  # USR1 belongs to NCCL's tooling (submitit#1709)
# What the job takes over from the environment of `xgen submit`; sbatch leaves everything else behind.
_FROM_CLIENT = ("HOME", "USER", "LOGNAME", "LANG", "PATH")
_FOR_TASKS = ("XGEN_RUN_DIR", "XGEN_ATTEMPT", "MASTER_ADDR", "MASTER_PORT", "PYTHONPATH", "PYTHONUNBUFFERED")


def render(job: Job, profile: Profile, run: RunDir) -> str:
    """The batch script of a run; every attempt and every successor runs this same text."""
    parts = [
        "#!/bin/bash",
        *(f"#SBATCH --{line}" for line in _sbatch_options(job, profile, run)),
        "trap 'TERMINATED=1' TERM  # untrapped, it kills bash, and nobody decides",
        f"# {run.name}, rendered by xgen. The functions below are xgen/cluster/host.sh; `decide` decides.",
        "",
        *_settings(job, run),
        "",
        _host_library(),
        *_body(job, profile, run),
    ]
    return "\n".join(parts) + "\n"


def partition_of(job: Job, profile: Profile) -> str:
    return job.resources.partition or profile.default_partition


def _sbatch_options(job: Job, profile: Profile, run: RunDir) -> list[str]:
    resources = job.resources
    options = [
        f"job-name={run.name}",
        f"partition={partition_of(job, profile)}",
        f"nodes={resources.nodes}",
        f"ntasks-per-node={resources.gpus_per_node}",
        f"cpus-per-task={resources.cpus_per_task}",
        f"time={_slurm_time(resources.time)}",
        f"signal={SIGNAL}@{job.lead}",
        "requeue",
        "open-mode=append",
        f"output={run.attempts_dir}/slurm-%j.log",
        f"chdir={run.path}",
        f"export={','.join(_FROM_CLIENT)}",
    ]
    if resources.memory is not None:
        options.append(f"mem={resources.memory // 2**20}M")
    if job.project is not None:
        options.append(f"account={job.project}")
    gpus, kind = resources.gpus_per_node, f"{profile.gpus.type}:" if profile.gpus.type else ""
    match profile.gpus.request:
        case "gpus-per-node":
            options.append(f"gpus-per-node={kind}{gpus}")
        case "gres":
            options.append(f"gres=gpu:{kind}{gpus}")
        case "none":
            pass
    return options


def _settings(job: Job, run: RunDir) -> list[str]:
    constants = {
        "RUN": str(run.path),
        "RUN_NAME": run.name,
        "DISCOVERY_FILE": str(run.discovery_file),
        "NUM_TASKS": job.resources.world_size,
        "TIME_LIMIT": job.resources.time,
        "LEAD": job.lead,
        "MAX_FAILURES": job.restart.max_failures,
        "TERMINATED": "${TERMINATED-}",
        "FAILURES": 0,
    }
    lines = [f"{key}={value if key == 'TERMINATED' else shlex.quote(str(value))}" for key, value in constants.items()]
    return [*lines, "umask 002", "export LC_ALL=C"]


def _host_library() -> str:
    return Path(__file__).with_name("host.sh").read_text(encoding="utf-8")


def _body(job: Job, profile: Profile, run: RunDir) -> list[str]:
    environment = {"PYTHONUNBUFFERED": "1", **profile.env, **job.env}
    code = run.code_dir
    launch = RUNTIMES[profile.container.runtime].launch(
        image_path(job, profile), all_mounts(job, profile, run), str(code)
    )
    names = dict.fromkeys((*_FROM_CLIENT, "LC_ALL", *_FOR_TASKS, *environment, *job.secrets))
    srun = [
        "srun",
        f"--export={','.join(names)}",  # names only: srun takes the values, commas and all, from here
        "--kill-on-bad-exit=1",
        "--label",
        "--unbuffered",
        *(["--gpu-bind=none"] if profile.gpus.request != "none" else []),
        *launch.srun_args,
        *map(shlex.quote, profile.srun_args),
    ]
    python = [shlex.quote(interpreter(profile)), "-m", "xgen.cli.task", shlex.quote(str(run.path))]
    secrets = ["  # shellcheck source=/dev/null", '  . "$XGEN_RUN_DIR/.secrets"'] if job.secrets else []
    return [
        "# shellcheck disable=SC2016 # values are literal: a $ in them is a $",
        "run_tasks() {",
        '  local XGEN_ENV_FILE="$ATTEMPT_DIR/env"',
        '  export XGEN_RUN_DIR="$RUN" XGEN_ATTEMPT="$ATTEMPT"',
        f"  export PYTHONPATH={shlex.quote(str(code))}",
        f"  export SRUN_CPUS_PER_TASK={job.resources.cpus_per_task}  # srun does not inherit it",
        *(f"  export {name}={shlex.quote(value)}" for name, value in environment.items()),
        *secrets,
        '  record_environment "$XGEN_ENV_FILE"',
        "  exec " + " \\\n    ".join([*srun, *launch.prefix, " ".join(python)]),
        "}",
        "",
        "begin_attempt",
        *launch.setup,
        "choose_rendezvous",
        "launch",
        "decide",
    ]


def interpreter(profile: Profile) -> str:
    """Python of the tasks: the profile's, else the image's, else the one that runs xgen now."""
    if profile.container.python is not None:
        return profile.container.python
    return sys.executable if profile.container.runtime == "none" else "python3"


def _slurm_time(seconds: int) -> str:
    """SLURM's own granularity is a minute: `D-HH:MM:SS`, rounded up."""
    minutes = -(-seconds // 60)
    return f"{minutes // 1440}-{minutes // 60 % 24:02d}:{minutes % 60:02d}:00"
