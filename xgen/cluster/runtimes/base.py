"""The one protocol of the container runtimes, pure: what is to run in, (setup, srun arguments, command prefix) out."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import ClassVar, Protocol

from xgen.images.resolve import Image, Kind
from xgen.spec import Mount

# What a task needs of the step that SLURM made for it; a runtime without the host's environment passes these by name.
SLURM_NAMES = (
    "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_USER", "SLURM_JOB_PARTITION", "SLURM_JOB_NODELIST", "SLURM_NNODES",
    "SLURM_NTASKS", "SLURM_NODEID", "SLURM_PROCID", "SLURM_LOCALID", "SLURMD_NODENAME", "SLURM_RESTART_COUNT",
    "SLURM_CPUS_PER_TASK",
)  # fmt: skip


# Of a script that runs once per node: where it keeps its locks. Nobody else's folder is taken for it.
PRIVATE_FOLDER = (
    "folder=${TMPDIR:-/tmp}/xgen-$(id -u)",
    'mkdir -m 700 "$folder" 2>/dev/null || [ -O "$folder" ] || exit',
    'cd "$folder" || exit',
)


@dataclass(frozen=True)
class Box:
    """What is to run, and what it needs around it. Paths are absolute, `env` holds names only."""

    run: str  # the run's name
    image: Image
    mounts: tuple[Mount, ...]
    workdir: str
    env: tuple[str, ...]  # variables that the batch script exports for the tasks
    multiline: tuple[str, ...] = ()  # of `env`: those whose value has several lines
    gpus: bool = False
    gpu_device: str | None = None  # device file of a GPU, {} for its number; None: NVIDIA's own means
    devices: tuple[str, ...] = ()
    memory: int | None = None  # bytes per node
    entrypoint: bool = False
    as_root: bool = False
    shard: bool = False  # one of a job array, of which others may be on the same node

    @property
    def name(self) -> str:
        """What no other job on a node calls its containers; it stands between double quotes of the shell."""
        return f"{self.run}-$XGEN_SHARD" if self.shard else self.run


@dataclass(frozen=True)
class Launch:
    """What a runtime adds to the batch script: lines of shell, and words of shell that are already quoted.

    Whatever stands before the command of a task ends in an `exec`: the stop signal reaches every process of a step,
    and a shell that stays would die of it.
    """

    setup: list[str] = field(default_factory=list)  # lines on the job's first node, before the tasks
    node: list[str] = field(default_factory=list)  # a script that runs once on each node before the tasks
    task: list[str] = field(default_factory=list)  # a script around each task; its last line execs with "$@"
    cleanup: list[str] = field(default_factory=list)  # a script that runs on each node after tasks that failed
    exports: list[str] = field(default_factory=list)  # lines before srun, which only the tasks see
    names: list[str] = field(default_factory=list)  # variables that those lines set
    srun_args: list[str] = field(default_factory=list)
    prefix: list[str] = field(default_factory=list)
    # For a command beside a task that runs. Without these it enters the namespaces of the task's process (enter.sh).
    inside: list[str] = field(default_factory=list)  # what starts it in the container: options, then `inside_name`
    inside_name: str = ""
    inside_srun: list[str] = field(default_factory=list)  # words of srun by which it comes in


class Runtime(Protocol):
    formats: ClassVar[tuple[Kind, ...]]  # of images, the best first

    def problems(self, box: Box) -> Iterator[tuple[str, str]]:
        """Key below `container` and message, for each thing that this runtime cannot do."""
        ...

    def launch(self, box: Box) -> Launch: ...


def device_mounts(box: Box) -> list[Mount]:
    """For runtimes that give the container the host's /dev: the folder of GPUs that lie elsewhere."""
    folder = str(PurePosixPath(box.gpu_device).parent) if box.gpus and box.gpu_device else "/dev"
    return [] if folder == "/dev" else [Mount(source=folder)]


def quoted(words: list[str]) -> list[str]:
    return [shlex.quote(word) for word in words]


def paths_without(box: Box, forbidden: str, runtime: str) -> Iterator[tuple[str, str]]:
    """A problem for each mount whose path holds a character that the runtime's syntax cannot express."""
    for mount in box.mounts:
        for path in dict.fromkeys((mount.source, mount.place)):
            if found := next((c for c in forbidden if c in path), None):
                yield "mounts", f"{path!r} holds {found!r}, which {runtime} cannot mount; rename it"


def unsupported(box: Box, runtime: str, **why: str) -> Iterator[tuple[str, str]]:
    """A problem for each setting of the box that `why` names and the spec uses."""
    for name, reason in why.items():
        if getattr(box, name):
            yield name, f"{runtime} {reason}"
