"""Enroot: as SLURM's plug-in pyxis drives it, and on its own. Flags are checked against their recorded help.

Unproven on a cluster by us; `xgen doctor --prove-runtime` proves it on a site. Sources: NVIDIA/pyxis args.c and
pyxis_slurmstepd.c, NVIDIA/enroot doc/cmd and src/docker.sh.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from typing import ClassVar

from xgen.cluster.runtimes.base import PRIVATE_FOLDER, SLURM_NAMES, Box, Launch, paths_without, quoted, unsupported
from xgen.images.resolve import Image, Kind

# An fstab line inside a quoted bash string: neither enroot nor pyxis can escape these.
_UNSAFE = ":, \"'$`\\"
_NVIDIA = (  # read by enroot's hook 98-nvidia.sh, which does nothing without the first
    "export NVIDIA_VISIBLE_DEVICES=all  # of the job's own: SLURM hides the others",
    "export NVIDIA_DRIVER_CAPABILITIES=compute,utility",
)


def uri(image: Image) -> str:
    """`docker://REGISTRY#NAME:DIGEST`: the one form that enroot 3 and 4 both read as a digest (src/docker.sh)."""
    reference = image.registry
    registry = "" if reference.registry == "docker.io" else f"{reference.registry}#"
    return f"docker://{registry}{reference.repository}:{reference.digest or reference.tag}"


class Pyxis:
    """pyxis 0.15 or newer. All tasks of a node share one container, whose processes are SLURM's own."""

    formats: ClassVar[tuple[Kind, ...]] = ("sqsh", "registry")

    def problems(self, box: Box) -> Iterator[tuple[str, str]]:
        yield from paths_without(box, _UNSAFE, "pyxis")

    def launch(self, box: Box) -> Launch:
        image = uri(box.image) if box.image.kind == "registry" else box.image.location
        mounts = [f"{m.source}:{m.place}{':ro' if m.read_only else ''}" for m in box.mounts]
        mounts += [f"{device}:{device}" for device in box.devices]
        nvidia = _is_nvidia(box)
        # An attempt after a preemption takes the container that the one before unpacked on this node, and one after
        # a failure does not: it may be half unpacked. Never another run's: joining it would take its mounts.
        name = f'--container-name="{box.name}-$(failures_so_far)"'
        return Launch(
            exports=[*(_NVIDIA if nvidia else ())],
            names=["NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"] if nvidia else [],
            srun_args=[
                shlex.quote(f"--container-image={image}"),
                name,
                shlex.quote(f"--container-mounts={','.join(mounts)}"),
                shlex.quote(f"--container-workdir={box.workdir}"),
                "--no-container-mount-home",
                "--container-readonly",
                "--container-remap-root" if box.as_root else "--no-container-remap-root",
                "--container-entrypoint" if box.entrypoint else "--no-container-entrypoint",
                f"--container-env={','.join(box.env)}",  # else what the image sets wins
            ],
            inside_srun=[name],  # which is there, and is used as it is
        )


class Enroot:
    """enroot 3.4 or newer without pyxis: each node unpacks the image once, the tasks share it read-only."""

    formats: ClassVar[tuple[Kind, ...]] = ("sqsh", "registry")

    def problems(self, box: Box) -> Iterator[tuple[str, str]]:
        yield from paths_without(box, _UNSAFE, "enroot")
        for name in box.multiline:
            yield f"env.{name}", "has several lines, which enroot cannot pass on; put it into a file and mount that"
        yield from unsupported(box, "enroot", entrypoint="runs none here; write it into the command")

    def launch(self, box: Box) -> Launch:
        nvidia = ["NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"] if _is_nvidia(box) else []
        mounts = [
            f"--mount={m.source}:{m.place}:none:x-create=auto,rbind{',ro' if m.read_only else ''}" for m in box.mounts
        ]
        mounts += [f"--mount={device}:{device}:none:x-create=auto,rbind" for device in box.devices]
        cuda = ["CUDA_VISIBLE_DEVICES"] if box.gpus else []  # passed on empty where it is unset, which hides all
        names = dict.fromkeys([*box.env, *SLURM_NAMES, *cuda, *nvidia])
        return Launch(
            setup=[
                "# Instead of the image's /etc/rc: the work, and no entrypoint, in the work's own folder.",
                f"""printf '%s\\n' {shlex.quote(f"cd {shlex.quote(box.workdir)} || exit")} 'exec "$@"' """
                """>"$ATTEMPT_DIR/enroot.rc\"""",
            ],
            node=_unpack(box.image),
            exports=list(_NVIDIA) if nvidia else [],
            names=nvidia,
            prefix=[
                "enroot",
                "start",
                *(["--root"] if box.as_root else []),
                *quoted(mounts),
                *(f"--env={name}" for name in names),
                '--rc="$ATTEMPT_DIR/enroot.rc"',
                _container_name(box.image),
            ],
        )


def _is_nvidia(box: Box) -> bool:
    return box.gpus and box.gpu_device is None


def _container_name(image: Image) -> str:
    """Of the unpacked image on a node, which all runs that start the same bits share."""
    known = image.digest.removeprefix("sha256:")[:24]
    return f"xgen-{known or hashlib.sha256(f'{image.location} {image.size} {image.mtime}'.encode()).hexdigest()[:24]}"


def _unpack(image: Image) -> list[str]:
    """Once per node and image, whatever the number of runs; half of one is never taken for the whole."""
    name = _container_name(image)
    if image.kind == "registry":
        fetch = [f"enroot import --output {name}.sqsh {shlex.quote(uri(image))}", f"file={name}.sqsh"]
    else:
        fetch = [f"file={shlex.quote(image.location)}"]
    return [
        "set -e",
        *PRIVATE_FOLDER,
        f"exec 9>{name}.lock && flock -w 3600 9",
        f"[ ! -e {name}.complete ] || ! enroot list | grep -qx {name} || exit 0",
        f"rm -f {name}.complete {name}.sqsh",
        *fetch,
        f'enroot create --force --name {name} "$file"',
        f"rm -f {name}.sqsh",
        f"touch {name}.complete",
    ]
