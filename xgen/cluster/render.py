"""The one renderer: spec and profile in, the whole text of the batch script out. Pure."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Collection, Iterable

from xgen.cluster.checks import check_lines, health_settings
from xgen.cluster.host import host_library
from xgen.cluster.mounts import all_mounts
from xgen.cluster.runtimes import RUNTIMES, Box, Launch
from xgen.cluster.secrets import KEY_VARIABLE
from xgen.cluster.slurm import FROM_CLIENT, WHO
from xgen.images.resolve import Image
from xgen.runs import RunDir
from xgen.spec import Job, Profile, Resources

SIGNAL = "USR2"  # USR1 belongs to NCCL's tooling (submitit#1709)
NO_TOKEN = "unset SLURM_JWT  # a client's, of minutes: on a node SLURM knows who asks, and srun takes none"
_FOR_TASKS = (
    "LC_ALL",
    "XGEN_RUN_DIR",
    "XGEN_ATTEMPT",
    "XGEN_STAGE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "PYTHONPATH",
    "PYTHONUNBUFFERED",
)
_FOR_SHARDS = ("XGEN_SHARD", "XGEN_NUM_SHARDS")


def render(
    job: Job,
    profile: Profile,
    run: RunDir,
    image: Image,
    stage: int = 0,
    after: str = "",
    shards: Collection[int] | None = None,
    behind: Collection[str] = (),
    exclude: Collection[str] = (),
    wait: int = 0,
) -> str:
    """The batch script of a stage of a run, to start when the job `after` has finished; every attempt and every
    successor runs this same text. `shards` are those of a job array that are to run; default: all. `behind` are jobs
    of other runs that it waits for, in SLURM's words: `afterany:12`; `exclude` nodes that it does not take. It does
    not start before `wait` seconds."""
    box = container_box(job, profile, run, image, stage)
    launch = RUNTIMES[profile.container.runtime].launch(box)
    names = dict.fromkeys((*WHO, *box.env, *launch.names))
    parts = [
        "#!/bin/bash",
        *(f"#SBATCH --{line}" for line in _sbatch_options(job, profile, run, stage, after, shards, behind)),
        *([f"#SBATCH --exclude={','.join(exclude)}"] if exclude else []),
        *([f"#SBATCH --begin=now+{wait}"] if wait else []),
        "# shellcheck disable=SC2317 # which of the functions are called depends on the runtime",
        "trap '' TERM  # untrapped, it kills bash, and nobody decides; `launch` hears it",
        NO_TOKEN,
        f"# {run.name}, rendered by xgen. The functions below are xgen/cluster/host/; `decide` decides.",
        "",
        library(job, profile, run, stage, names),
        *_body(job, profile, run, image, launch, stage),
    ]
    return "\n".join(parts) + "\n"


def _sbatch_options(
    job: Job,
    profile: Profile,
    run: RunDir,
    stage: int,
    after: str,
    shards: Collection[int] | None,
    behind: Collection[str],
) -> list[str]:
    name, resources = job.jobs[stage]
    array = job.array_of(stage)
    options = [
        f"job-name={run.name}",
        f"partition={resources.partition or profile.default_partition}",
        f"nodes={resources.nodes}",
        f"ntasks-per-node={resources.tasks_per_node}",
        f"cpus-per-task={resources.cpus_per_task}",
        f"time={_slurm_time(resources.time)}",
        f"signal={SIGNAL}@{job.lead}",
        "requeue",
        "open-mode=append",
        f"output={run.shards_dir if array else run.attempts_dir}/slurm-%{'A_%a' if array else 'j'}.log",
        f"chdir={run.path}",
        "export=ALL",  # of what sbatch is run with: FROM_CLIENT
    ]
    if array:
        numbers = _ranges(range(array.shards) if shards is None else shards)
        options.append(f"array={numbers}" + (f"%{array.at_once}" if array.at_once else ""))
    if name:
        options.append(f"comment=stage:{name}")
    if terms := [*([f"afterok:{after}"] if after else []), *behind]:
        # One that can never start would wait in the queue for ever.
        options += [f"dependency={','.join(terms)}", "kill-on-invalid-dep=yes"]
    if resources.memory is not None:
        options.append(f"mem={resources.memory // 2**20}M")
    if (account := profile.account_of(job.project)) is not None:
        options.append(f"account={account}")
    gpus, kind = resources.gpus_per_node, f"{profile.gpus.type}:" if profile.gpus.type else ""
    match _gpu_request(resources, profile):
        case "gpus-per-node":
            options.append(f"gpus-per-node={kind}{gpus}")
        case "gres":
            options.append(f"gres=gpu:{kind}{gpus}")
        case "none":
            pass
    return options


def _ranges(numbers: Collection[int]) -> str:
    """As sbatch reads them: 0-3,7,9-10."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][-1] == number - 1:
            found[-1][1:] = [number]
        else:
            found.append([number])
    return ",".join("-".join(map(str, ends)) for ends in found)


def _gpu_request(resources: Resources, profile: Profile) -> str:
    """How the job asks for GPUs: as the profile says, where it wants any."""
    return profile.gpus.request if resources.gpus_per_node else "none"


def _gpus_granted(resources: Resources, profile: Profile) -> int:
    """To the job, on each of its nodes."""
    return 0 if _gpu_request(resources, profile) == "none" else resources.gpus_per_node


def library(job: Job, profile: Profile, run: RunDir, stage: int, names: Iterable[str] = ()) -> str:
    """The functions of the host, with what they need to know of a stage. Whoever settles a run has them too."""
    return "\n".join([*_settings(job, profile, run, names, stage), "", host_library()])


def _settings(job: Job, profile: Profile, run: RunDir, names: Iterable[str], stage: int) -> list[str]:
    name, resources = job.jobs[stage]
    array = job.array_of(stage)
    constants = {
        "RUN": str(run.path),
        "RUN_NAME": run.name,
        "DISCOVERY_FILE": str(run.discovery_file),
        "STAGE": stage,
        "STAGE_NAME": name,
        "LAST_STAGE": len(job.jobs) - 1,
        "SHARDS": array.shards if array else 0,
        "SERVES": "1" if job.serves(stage) else "",
        "NUM_TASKS": resources.world_size,
        "TIME_LIMIT": resources.time,
        "LEAD": job.lead,
        "MAX_FAILURES": job.restart.max_failures,
        "RESTART_BY": job.restart.by or profile.restart_by,
        "BACKOFF_FIRST": job.restart.backoff.first,
        "BACKOFF_MOST": job.restart.backoff.most,
        "MAX_GPU_SECONDS": math.ceil((job.restart.max_gpu_hours or 0) * 3600),
        "NUM_GPUS": resources.nodes * resources.gpus_per_node,
        "EXPORT": ",".join(names),
        "FROM_CLIENT": " ".join([*FROM_CLIENT, *([KEY_VARIABLE] if job.secrets else [])]),
        "TERMINATED": "${TERMINATED-}",
        "FAILURES": 0,
        "RESUMED": "",
        "REQUEUE_PAUSE": 15,
        **health_settings(job, profile, stage),
    }
    lines = [f"{key}={value if key == 'TERMINATED' else shlex.quote(str(value))}" for key, value in constants.items()]
    return [*lines, "umask 002", "export LC_ALL=C"]


def container_box(job: Job, profile: Profile, run: RunDir, image: Image, stage: int = 0) -> Box:
    """What is to run, in the words of the runtimes."""
    values = {**profile.env, **job.env}
    array = job.array_of(stage) is not None
    names = (*_FOR_TASKS, *(_FOR_SHARDS if array else ()), *values, *([KEY_VARIABLE] if job.secrets else []))
    return Box(
        run=run.name,
        image=image,
        mounts=all_mounts(job, profile, run),
        workdir=job.container.workdir or str(run.code_dir),
        env=tuple(dict.fromkeys(names)),
        multiline=tuple(name for name, value in values.items() if "\n" in value),
        gpus=_gpu_request(job.jobs[stage][1], profile) != "none",
        gpu_device=profile.gpus.devices,
        devices=tuple(profile.container.devices),
        memory=job.jobs[stage][1].memory,
        entrypoint=job.container.entrypoint,
        as_root=job.container.as_root,
        shard=array,
    )


def _body(job: Job, profile: Profile, run: RunDir, image: Image, launch: Launch, stage: int) -> list[str]:
    environment = {"PYTHONUNBUFFERED": "1", **profile.env, **job.env}
    srun = [
        "srun",
        '--export="$EXPORT"',  # names only: srun takes the values, commas and all, from here
        "--kill-on-bad-exit=1",
        "--label",
        "--unbuffered",
        *(["--gpu-bind=none"] if _gpu_request(job.jobs[stage][1], profile) != "none" else []),
        *launch.srun_args,
        *map(shlex.quote, profile.srun_args),
    ]
    around = ['bash "$ATTEMPT_DIR/task.sh"'] if launch.task else []
    own_image = job.image_of(stage) != job.container.image
    python = [shlex.quote(interpreter(profile, own_image)), "-m", "xgen.cli.task", shlex.quote(str(run.path))]
    return [
        "# shellcheck disable=SC2016 # values are literal: a $ in them is a $",
        "set_environment() {",
        '  export XGEN_RUN_DIR="$RUN" XGEN_ATTEMPT="$ATTEMPT" XGEN_STAGE="$STAGE"',
        *(['  export XGEN_SHARD="$SHARD" XGEN_NUM_SHARDS="$SHARDS"'] if job.array_of(stage) else []),
        f"  export PYTHONPATH={shlex.quote(str(run.code_dir))}",
        f"  export SRUN_CPUS_PER_TASK={job.jobs[stage][1].cpus_per_task}  # srun does not inherit it",
        *(f"  export {name}={shlex.quote(value)}" for name, value in environment.items()),
        "}",
        "",
        "run_tasks() {",
        '  local XGEN_ENV_FILE="$ATTEMPT_DIR/env"',
        "  set_environment",
        *(f"  {line}" for line in launch.exports),
        '  record_environment "$XGEN_ENV_FILE"',
        "  exec " + " \\\n    ".join([*srun, *around, *launch.prefix, " ".join(python)]),
        "}",
        "",
        "begin_attempt",
        *check_lines(job, profile, stage, _gpus_granted(job.jobs[stage][1], profile)),
        *_same_image(image),
        *launch.setup,
        *_scripts(launch),
        "choose_rendezvous",
        "launch",
        "decide",
    ]


def _same_image(image: Image) -> list[str]:
    """A file that is not the store's own may have been replaced while the job waited."""
    if not image.mtime:
        return []
    return [f"same_image {shlex.quote(image.location)} {image.size} {image.mtime}"]


def _scripts(launch: Launch) -> list[str]:
    """The runtime's scripts, written beside the logs of the attempt: what ran can be read there."""
    lines = []
    for name, text in (("node", launch.node), ("task", launch.task), ("cleanup", launch.cleanup)):
        if text:
            lines += [f"cat >\"$ATTEMPT_DIR/{name}.sh\" <<'END'", *text, "END"]
    if launch.node:
        lines.append('on_every_node 3600 "$ATTEMPT_DIR/node.sh" || not_ready "the image"')
    return lines


def interpreter(profile: Profile, own_image: bool = False) -> str:
    """Python of the tasks: the profile's, else the image's, else the one that runs xgen now. That of the profile is in
    the images of the work, not in the one that a job has for its own."""
    boxed = profile.container.runtime != "none"
    if profile.container.python is not None and not (own_image and boxed):
        return profile.container.python
    return "python3" if boxed else sys.executable


def _slurm_time(seconds: int) -> str:
    """SLURM's own granularity is a minute: `D-HH:MM:SS`, rounded up."""
    minutes = -(-seconds // 60)
    return f"{minutes // 1440}-{minutes // 60 % 24:02d}:{minutes % 60:02d}:00"
