"""No container: the files of the nodes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import ClassVar

from xgen.cluster.runtimes.base import Box, Launch
from xgen.images.resolve import Kind


class NoContainer:
    """The image, the mounts and the devices are not used."""

    formats: ClassVar[tuple[Kind, ...]] = ()

    def problems(self, box: Box) -> Iterator[tuple[str, str]]:
        if box.as_root:
            yield "as_root", "there is no container to be root in; remove it"

    def launch(self, box: Box) -> Launch:
        return Launch(srun_args=[f"--chdir={shlex.quote(box.workdir)}"])
