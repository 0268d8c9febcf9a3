"""The programs that a runtime needs on a node, and how old they may be. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from xgen.spec import RuntimeName

# The least version that knows the flags that we write (docs/containers.md).
PROGRAMS: Mapping[RuntimeName, Mapping[str, tuple[int, ...]]] = {
    "none": {},
    "pyxis": {"enroot": (3, 4)},
    "enroot": {"enroot": (3, 4)},
    "docker": {"docker": (20, 10)},
    "podman": {"podman": (4, 0), "crun": ()},
    "apptainer": {"apptainer": (1, 1)},
    "singularity": {"singularity": (3, 10)},
    "charliecloud": {"ch-run": (0, 26)},
}


def wrong_version(name: str, said: str | None, least: tuple[int, ...]) -> str:
    """What is wrong with a program that said this of its version; '' for nothing, or where that is not known."""
    if said is None:
        return ""
    if not said:
        return f"{name} is not on PATH"
    found = tuple(map(int, version_of(said).split("."))) if version_of(said) else ()
    if not found and name == "docker":
        return f"dockerd does not answer: {said}"
    return f"{name} {version_of(said)} is older than {'.'.join(map(str, least))}" if found and found < least else ""


def version_of(text: str) -> str:
    """`4.3.1` of `podman version 4.3.1`; '' for none."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return found[0] if found else ""
