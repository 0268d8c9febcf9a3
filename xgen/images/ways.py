"""Which tools lead from an image as it is to the formats that are wanted: a cheapest path, pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from xgen.images.errors import ImageError
from xgen.images.source import Material

_PACKAGES = {"mksquashfs": "squashfs-tools", "unsquashfs": "squashfs-tools", "docker": "docker.io"}


@dataclass(frozen=True)
class Way:
    """One conversion by one tool. A tool that also keeps a copy in a storage of its own costs more."""

    of: Material
    made: Material
    tool: str
    cost: int = 1


WAYS = (
    Way("registry", "layout", "skopeo"),
    Way("registry", "tar", "podman", 6),
    Way("registry", "tar", "buildah", 6),
    Way("registry", "tar", "docker", 6),
    Way("registry", "sqsh", "enroot"),
    Way("registry", "sif", "apptainer"),
    Way("registry", "sif", "singularity"),
    Way("docker-daemon", "tar", "docker"),
    Way("podman", "tar", "podman"),
    Way("containers-storage", "layout", "skopeo"),
    Way("containers-storage", "tar", "podman", 2),
    Way("containers-storage", "tar", "buildah", 2),
    Way("oci-archive", "layout", "skopeo"),
    Way("oci", "layout", "skopeo"),
    Way("tar", "layout", "skopeo"),
    Way("tar", "folder", "podman", 6),
    Way("tar", "folder", "docker", 6),
    Way("tar", "folder", "apptainer", 6),
    Way("tar", "folder", "singularity", 6),
    Way("tar", "sif", "apptainer"),
    Way("tar", "sif", "singularity"),
    Way("layout", "tar", "skopeo"),
    Way("layout", "folder", "umoci"),
    Way("tree", "folder", "cp"),
    Way("folder", "sqsh", "mksquashfs"),
    Way("folder", "tar", "tar", 3),  # one layer, without what the image said of itself
    Way("folder", "sif", "apptainer", 3),
    Way("folder", "sif", "singularity", 3),
    Way("sqsh", "folder", "unsquashfs"),
    Way("sif", "folder", "apptainer"),
    Way("sif", "folder", "singularity"),
)


def find_ways(have: Iterable[Material], want: Iterable[Material], usable: Callable[[str], bool]) -> list[Way]:
    """What to do, in order; each step starts from what is there or from what a step before it made.

    Raises ImageError that names the tools to install.
    """
    there = list(have)
    todo: list[Way] = []
    for target in want:
        path = _cheapest(there, target, usable)
        if path is None:
            path = _cheapest(there, target, lambda _: True)
            if path is None:
                raise ImageError(f"no tool makes a {target} of a {there[0]}")
            raise ImageError(_lacking(there[0], target, sorted({way.tool for way in path if not usable(way.tool)})))
        todo += path
        there += [way.made for way in path]
    return todo


def _lacking(of: Material, made: Material, tools: list[str]) -> str:
    packages = " ".join(sorted({_PACKAGES.get(tool, tool) for tool in tools}))
    return (
        f"a {of} becomes a {made} with {', '.join(tools)}: not usable on this machine; "
        f"install it (Debian: apt-get install {packages}), or import on a machine that has it"
    )


def _cheapest(have: list[Material], target: Material, usable: Callable[[str], bool]) -> list[Way] | None:
    """Bellman and Ford: the table is small, and the order of the table decides between equals."""
    best: dict[Material, tuple[int, list[Way]]] = dict.fromkeys(have, (0, []))
    for _ in range(len(WAYS)):
        changed = False
        for way in WAYS:
            if way.of not in best or way.made in have or not usable(way.tool):
                continue
            cost, path = best[way.of]
            cost += way.cost
            if way.made not in best or cost < best[way.made][0]:
                best[way.made] = (cost, [*path, way])
                changed = True
        if not changed:
            break
    found = best.get(target)
    return found[1] if found is not None else None
