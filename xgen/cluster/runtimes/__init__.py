"""Container runtimes behind one protocol; what each can do, and what it cannot, stands in docs/containers.md."""

from xgen.cluster.runtimes.apptainer import Apptainer
from xgen.cluster.runtimes.base import Box, Launch, Runtime
from xgen.cluster.runtimes.charliecloud import Charliecloud
from xgen.cluster.runtimes.enroot import Enroot, Pyxis
from xgen.cluster.runtimes.oci import Docker, Podman
from xgen.cluster.runtimes.plain import NoContainer
from xgen.spec import RuntimeName

RUNTIMES: dict[RuntimeName, Runtime] = {
    "none": NoContainer(),
    "pyxis": Pyxis(),
    "enroot": Enroot(),
    "docker": Docker(),
    "podman": Podman(),
    "apptainer": Apptainer("apptainer"),
    "singularity": Apptainer("singularity"),
    "charliecloud": Charliecloud(),
}

__all__ = ["RUNTIMES", "Box", "Launch", "Runtime"]
