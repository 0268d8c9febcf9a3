"""Apptainer 1.1 or newer, and SingularityCE 3.10 or newer, which share their command line.

Unproven on a cluster by us; `xgen doctor --prove-runtime` proves it on a site. Flags are checked against the help of
Apptainer 1.4.5 and SingularityCE (tests/cluster_unit/help).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import ClassVar

from xgen.cluster.runtimes.base import Box, Launch, device_mounts, quoted
from xgen.images.resolve import Kind


class Apptainer:
    formats: ClassVar[tuple[Kind, ...]] = ("sif", "folder", "sqsh", "registry")

    def __init__(self, program: str) -> None:
        self._program = program

    def problems(self, box: Box) -> Iterator[tuple[str, str]]:
        del box  # it can say everything
        yield from ()

    def launch(self, box: Box) -> Launch:
        # The host's environment is inherited, but what the image sets wins, unless it is said with this prefix.
        prefix = f"{self._program.upper()}ENV_"
        # --pwd: Apptainer 1.3 hides it behind --cwd, SingularityCE knows no other; both take it.
        flags = [
            "--no-eval",  # values are text, not shell
            "--no-home",
            *(["--fakeroot"] if box.as_root else []),
            *(["--nv"] if box.gpus and box.gpu_device is None else []),
            f"--pwd={box.workdir}",
            *(
                f"--bind={_escaped(m.source)}:{_escaped(m.place)}:{'ro' if m.read_only else 'rw'}"
                for m in [*box.mounts, *device_mounts(box)]
            ),
        ]
        image = f"docker://{box.image.registry}" if box.image.kind == "registry" else box.image.location
        return Launch(
            exports=[f'export {prefix}{name}="${{{name}-}}"' for name in box.env],
            names=[f"{prefix}{name}" for name in box.env],
            prefix=[self._program, "run" if box.entrypoint else "exec", *quoted(flags), shlex.quote(image)],
        )


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")
