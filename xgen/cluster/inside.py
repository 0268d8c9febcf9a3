"""A command inside a job that runs: on the node, in the container and with the environment of one of its tasks."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from xgen.cluster.prepare import pinned_images
from xgen.cluster.render import container_box
from xgen.cluster.runtimes import RUNTIMES
from xgen.cluster.slurm import WHO
from xgen.runs import RunDir, read_attempt_outcome
from xgen.spec import Job, Profile

# What srun hands to the shell that looks for the task; the command itself has the task's environment.
_OF_CLIENT = ",".join([*WHO, "TERM"])


@dataclass(frozen=True)
class Task:
    """A task of a run that runs. `job_id` is '' where no SLURM runs it, `node` then means nothing."""

    run: RunDir  # of the shard, where it is one
    attempt: int
    stage: int
    rank: int
    job_id: str = ""
    node: str = ""


def inside(task: Task, job: Job, profile: Profile, command: list[str], *, terminal: bool) -> list[str]:
    """The words that run `command` where the task runs. `terminal`: it is to have one."""
    whole = task.run.whole
    box = container_box(job, profile, whole, pinned_images(whole, job)[task.stage], task.stage)
    launch = RUNTIMES[profile.container.runtime].launch(box)
    text = Path(__file__).with_name("enter.sh").read_text(encoding="utf-8")
    enter = ["bash", "-c", text, "xgen", str(task.run.path), str(task.rank), box.workdir, *command]
    words = shlex.join(enter)
    if launch.inside:
        options = ["--interactive", *(["--tty"] if terminal else []), f"--workdir={box.workdir}"]
        words = " ".join([*launch.inside, shlex.join(options), launch.inside_name, shlex.join(command)])
    before = task.attempt - 1
    outcome = read_attempt_outcome(task.run, before) if before else None
    lines = [
        f"export XGEN_ATTEMPT={task.attempt} SLURM_PROCID={task.rank}",
        *([f"export XGEN_SHARD={task.run.path.name}"] if box.shard else []),
        f"failures_so_far() {{ echo {outcome.failures if outcome else 0}; }}",
    ]
    if not task.job_id:
        return ["bash", "-c", "\n".join([*lines, f"exec {words}"])]
    srun = [
        "srun",
        f"--jobid={task.job_id}",
        "--overlap",  # beside the tasks, on what they have
        "--nodes=1",
        "--ntasks=1",
        f"--nodelist={task.node}",
        f"--export={_OF_CLIENT}",
        "--gpu-bind=none",
        *(["--pty"] if terminal else []),
    ]
    if launch.inside:  # on the node, where the variables mean something
        words = shlex.join(["bash", "-c", "\n".join([*lines, f"exec {words}"])])
    return ["bash", "-c", "\n".join([*lines, " ".join(["exec", shlex.join(srun), *launch.inside_srun, words])])]
