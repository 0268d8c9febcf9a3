"""Docker and Podman. One container a task; all of a node share the host's network, IPC and /dev/shm, as NCCL needs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import ClassVar

from xgen.cluster.runtimes.base import PRIVATE_FOLDER, SLURM_NAMES, Box, Launch, quoted, unsupported
from xgen.images.resolve import Kind
from xgen.spec import Mount

_FORWARDED = ("--rm", "--network=host", "--ipc=host", "--uts=host", "--read-only")


class Docker:
    """Docker 20.10 or newer; NVIDIA's GPUs through its container toolkit.

    dockerd starts the container outside the job's cgroups, and runc cannot make a cgroup below one whose devices
    SLURM restricts. So what SLURM would do is asked of docker: the granted GPUs, the memory, and the end, for the
    task watches the client that started it and ends with it.
    """

    formats: ClassVar[tuple[Kind, ...]] = ("tar", "registry")

    def problems(self, box: Box) -> Iterator[tuple[str, str]]:
        yield from unsupported(box, "docker", as_root="makes root inside root outside; remove it, or use podman")

    def launch(self, box: Box) -> Launch:
        flags = [
            *_FORWARDED,
            "--pid=host",  # the signal finds a process that is not an init, and the task sees its client
            *([f"--memory={box.memory}"] if box.memory else []),
            *_common(box),
        ]
        if box.devices:
            flags += ["--ulimit=memlock=-1"]  # RDMA pins what it registers
        image = box.image.digest if box.image.kind == "tar" and box.image.digest else box.image.location
        label, name = f'"xgen.run={box.name}"', f'"{box.name}-$XGEN_ATTEMPT-$SLURM_PROCID"'
        return Launch(
            node=_load("docker", box, image),
            task=[
                *_gpu_lines(
                    box,
                    # By name: a number means something else inside a job.
                    'gpus=("--gpus=\\"device=$(nvidia-smi --query-gpu=uuid --format=csv,noheader | paste -sd, -)\\"")',
                ),
                'groups=(); for group in $(id -G); do groups+=(--group-add="$group"); done',
                "export XGEN_CLIENT=$$  # the pid of docker run, after the exec",
                "exec docker run \\",
                f"  --name={name} --label={label} \\",
                '  --user="$(id -u):$(id -g)" "${groups[@]}" \\',
                *_continued([*quoted(flags), *_env([*box.env, *SLURM_NAMES, "XGEN_CLIENT"])]),
                f'  "${{gpus[@]}}" {shlex.quote(image)} "$@"',
            ],
            inside=["docker", "exec"],  # whose user need not be allowed to enter it otherwise
            inside_name=name,
            cleanup=[f"docker ps --quiet --filter=label={label} | xargs -r docker rm --force"],
        )


class Podman:
    """Podman 4.0 or newer with crun. It starts the container as its own child, inside the job's cgroups: SLURM's limits
    on memory and devices hold in it, and its end is the container's."""

    formats: ClassVar[tuple[Kind, ...]] = ("folder", "tar", "registry")

    def problems(self, box: Box) -> Iterator[tuple[str, str]]:
        if box.image.kind == "folder" and ":" in box.image.location:
            yield "image", f"{box.image.location!r} holds ':', which podman --rootfs cannot take; rename it"

    def launch(self, box: Box) -> Launch:
        flags = [
            *_FORWARDED,
            "--cgroups=disabled",  # the job's own; podman then insists on a pid namespace,
            "--init",  # where the task must not be pid 1: that one does not die of signals
            *_common(box),
        ]
        folder = box.image.kind == "folder"
        image = box.image.digest if box.image.kind == "tar" and box.image.digest else box.image.location
        start = f"--rootfs {shlex.quote(f'{box.image.location}:O')}" if folder else shlex.quote(image)
        return Launch(
            node=[] if folder else _load("podman", box, image),
            task=[
                *_gpu_lines(box, "gpus=(--device=nvidia.com/gpu=all)  # of which SLURM opens the job's own"),
                *_podman_user(box.as_root),
                "exec podman run \\",
                *_continued([*quoted(flags), *_env([*box.env, *SLURM_NAMES, "CUDA_VISIBLE_DEVICES"])]),
                f'  "${{user[@]}}" "${{gpus[@]}}" {start} "$@"',
            ],
        )


def _podman_user(as_root: bool) -> list[str]:
    if as_root:
        return ["user=(--user=0:0)"]
    return ["user=(--userns=keep-id)", '[ "$(id -u)" -ne 0 ] || user=(--user=0:0)  # keep-id is for users']


def _common(box: Box) -> list[str]:
    entrypoint = [] if box.entrypoint else ["--entrypoint="]
    mounts = [f"--mount={_mount(m)}" for m in (Mount(source="/tmp"), *box.mounts)]
    return [*entrypoint, f"--workdir={box.workdir}", *mounts, *(f"--device={device}" for device in box.devices)]


def _mount(mount: Mount) -> str:
    """A record of CSV, in which any path can be said."""
    fields = [
        "type=bind",
        f"source={mount.source}",
        f"target={mount.place}",
        *(["readonly"] if mount.read_only else []),
    ]
    return ",".join('"' + f.replace('"', '""') + '"' if set(f) & set('",') else f for f in fields)


def _env(names: list[str]) -> list[str]:
    """Names only: the value comes from the environment of the client, and never stands in a command line."""
    return [f"--env={name}" for name in dict.fromkeys(names)]


def _gpu_lines(box: Box, nvidia: str) -> list[str]:
    """All GPUs that the job has on the node, for each task: NCCL reaches the others' through them."""
    if not box.gpus:
        return ["gpus=()"]
    if box.gpu_device is None:
        return [nvidia]
    before, after = (shlex.quote(part) if part else "" for part in box.gpu_device.split("{}"))
    return [
        "gpus=()  # those that SLURM lets this job open: with --gpu-bind=none no variable says which",
        f"for device in {before}*{after}; do",
        """  [[ $({ : <"$device"; } 2>&1) == *'not permitted'* ]] || gpus+=("--device=$device")""",
        "done",
    ]


def _load(program: str, box: Box, image: str) -> list[str]:
    """The image in the node's own storage, once per node whatever the number of tasks."""
    lock = [*PRIVATE_FOLDER, f"exec 9>{program}.lock && flock -w 3600 9"]
    there = f"{program} image inspect {shlex.quote(image)} >/dev/null 2>&1 && exit 0"
    if box.image.kind == "registry":
        return [*lock, there, f"exec {program} pull --quiet {shlex.quote(image)}"]
    return [*lock, there, f"exec {program} load --quiet --input {shlex.quote(box.image.location)}"]


def _continued(words: list[str], width: int = 110) -> list[str]:
    """Words on lines of at most `width` characters that end in a backslash."""
    lines, line = [], " "
    for word in words:
        if len(line) + len(word) + 3 > width and line.strip():
            lines.append(f"{line} \\")
            line = " "
        line += f" {word}"
    return [*lines, f"{line} \\"]
