"""Charliecloud 0.26 or newer: user namespaces, no daemon, the host's /dev and environment (ch-run(1))."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import ClassVar

from xgen.cluster.runtimes.base import Box, Launch, device_mounts, paths_without, quoted, unsupported
from xgen.images.resolve import Kind


class Charliecloud:
    formats: ClassVar[tuple[Kind, ...]] = ("folder",)

    def problems(self, box: Box) -> Iterator[tuple[str, str]]:
        yield from paths_without(box, ":", "ch-run")
        yield from unsupported(box, "charliecloud", entrypoint="runs no entrypoint; write it into the command")

    def launch(self, box: Box) -> Launch:
        image = shlex.quote(box.image.location)
        mounts = [*box.mounts, *device_mounts(box)]
        targets = " ".join(quoted([f"{box.image.location}{mount.place}" for mount in mounts]))
        binds = quoted([f"--bind={mount.source}:{mount.place}" for mount in mounts])
        lacks = shlex.quote(f"the image {box.image.location} lacks mount points, and they cannot be made")
        return Launch(
            setup=[
                'export USER="${USER:-$(id -un)}"  # ch-run stops without it',
                "# ch-run cannot make mount points in an image that it mounts read-only",
                *([f"mkdir -p {targets} || refuse {lacks}"] if targets else []),
            ],
            prefix=[
                "ch-run",
                *(["--uid=0", "--gid=0"] if box.as_root else []),
                *binds,
                shlex.quote(f"--cd={box.workdir}"),
                image,
                "--",
            ],
        )
