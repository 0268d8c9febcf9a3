"""Container runtimes, one pure protocol: spec in, (setup lines, srun arguments, command prefix) out."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Protocol

from xgen.runs import RunDir
from xgen.spec import Job, Mount, Profile


@dataclass(frozen=True)
class Launch:
    """What a runtime adds to the batch script.

    `prefix` stands before the command of each task and must `exec` it: the stop signal reaches every process
    of a step, and a wrapper that stays would die of it. Its words are shell text, already quoted.
    """

    setup: list[str] = field(default_factory=list)
    srun_args: list[str] = field(default_factory=list)
    prefix: list[str] = field(default_factory=list)


class Runtime(Protocol):
    def launch(self, image: str, mounts: list[Mount], workdir: str) -> Launch: ...


class NoContainer:
    """The host's own files: the image and the mounts are not used."""

    def launch(self, image: str, mounts: list[Mount], workdir: str) -> Launch:
        del image, mounts
        return Launch(srun_args=[f"--chdir={workdir}"])


class Charliecloud:
    """Charliecloud 0.26 or newer: an unpacked image in a folder, user namespaces, no daemon (ch-run(1))."""

    def launch(self, image: str, mounts: list[Mount], workdir: str) -> Launch:
        quoted = shlex.quote(image)
        targets = [m.target or m.source for m in mounts]
        binds = [f"--bind={shlex.quote(f'{m.source}:{t}')}" for m, t in zip(mounts, targets, strict=True)]
        folders = " ".join(shlex.quote(f"{image}{target}") for target in targets)
        return Launch(
            setup=[
                'export USER="${USER:-$(id -un)}"  # ch-run stops without it',
                f"[ -d {quoted}/bin ] || refuse {shlex.quote(f'the image {image} is not on this node')}",
                "# ch-run mounts the image read-only, so it cannot make the mount points itself",
                f"mkdir -p {folders} || refuse {shlex.quote(f'the image {image} lacks mount points')}",
            ],
            prefix=["ch-run", *binds, f"--cd={shlex.quote(workdir)}", quoted, "--"],
        )


RUNTIMES: dict[str, Runtime] = {"none": NoContainer(), "charliecloud": Charliecloud()}


def all_mounts(job: Job, profile: Profile, run: RunDir) -> list[Mount]:
    """What every job needs (its run directory, the folder in which it announces itself to Prometheus, what it
    reads), then what the cluster needs, then the spec's own; the last word on a target counts."""
    needed = [Mount(source=str(run.path)), Mount(source=str(run.discovery_file.parent))]
    store = getattr(getattr(job, "data", None), "store", None)
    if store is not None:
        needed.append(Mount(source=store))
    by_target = {m.target or m.source: m for m in (*needed, *profile.container.mounts, *job.container.mounts)}
    return list(by_target.values())


def image_path(job: Job, profile: Profile) -> str:
    """The image as the runtime takes it: a name is looked up in the profile's image_dir. '' for no image."""
    image = job.container.image or ""
    if not image or "/" in image or profile.container.image_dir is None:
        return image
    return f"{profile.container.image_dir}/{image}"
