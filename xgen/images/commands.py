"""The command line of each tool, pure: what is run is what the golden tests read.

apptainer, singularity and enroot: written from their documentation (apptainer 1.4, enroot 3.4), unproven here.
"""

from __future__ import annotations

import os
from pathlib import Path

from xgen.spec.image import Reference

TAG = "xgen"  # of the one image in a layout that we make
Argv = tuple[str, ...]
DOCKER_ANSWERS: Argv = ("docker", "version", "--format={{.Server.Version}}")


def is_loopback(registry: str) -> bool:
    """Whether the host of a registry is this machine: such a registry speaks HTTP."""
    host = registry.rpartition(":")[0] or registry
    return host in ("localhost", "127.0.0.1") or host.startswith("127.")


def has_policy(home: Path, root: Path = Path("/")) -> bool:
    """Whether containers-policy.json(5) is there; skopeo stops without one, and conda's skopeo brings none."""
    return (home / ".config/containers/policy.json").is_file() or (root / "etc/containers/policy.json").is_file()


def skopeo_copy(source: str, target: str, *, plain_http: bool = False, policy: bool = True, tmp: Path) -> Argv:
    """Not with --dest-oci-accept-uncompressed-layers, which would save time: skopeo 1.9 calls such layers gzip."""
    return (
        "skopeo",
        *(() if policy else ("--insecure-policy",)),
        f"--tmpdir={tmp}",
        "copy",
        "--quiet",
        *(("--retry-times=3",) if source.startswith("docker://") else ()),
        *(("--src-tls-verify=false",) if plain_http else ()),
        source,
        target,
    )


def skopeo_config(source: str) -> Argv:
    """Prints an image's configuration, to the byte."""
    return ("skopeo", "inspect", "--config", "--raw", source)


def umoci_unpack(layout: Path, tag: str, root: Path, *, uid: int | None = None) -> Argv:
    """`--rootless` maps every owner to the caller; only root can keep the image's owners."""
    rootless = (os.geteuid() if uid is None else uid) != 0
    return ("umoci", "raw", "unpack", *(("--rootless",) if rootless else ()), f"--image={layout}:{tag}", str(root))


def mksquashfs(folder: Path, target: Path, *, zstd: bool, processors: int) -> Argv:
    """As enroot squashes: all files are root's. Extended attributes may name things that the next host lacks."""
    return (
        "mksquashfs",
        str(folder),
        str(target),
        "-all-root",
        "-noappend",
        "-no-progress",
        "-no-xattrs",
        "-processors",
        str(processors),
        *(("-comp", "zstd", "-Xcompression-level", "9", "-b", "1M") if zstd else ()),
    )


def unsquashfs(image: Path, folder: Path) -> Argv:
    return ("unsquashfs", "-no-progress", "-no-xattrs", "-d", str(folder), str(image))


def unsquashfs_cat(image: Path, *members: str) -> Argv:
    return ("unsquashfs", "-cat", str(image), *members)


def pull(tool: str, reference: Reference) -> list[Argv]:
    """For docker, podman and buildah."""
    plain = ("--tls-verify=false",) if tool != "docker" and is_loopback(reference.registry) else ()
    return [(tool, "pull", *plain, str(reference))]


def save(tool: str, image: str, archive: Path) -> Argv:
    """An image in a tool's own storage -> docker archive."""
    if tool == "buildah":
        return ("buildah", "push", image, f"docker-archive:{archive}")
    kind = ("--format=docker-archive",) if tool == "podman" else ()
    return (tool, "save", *kind, f"--output={archive}", image)


def image_id(tool: str, image: str) -> Argv:
    """Prints the image ID: the digest of its configuration."""
    if tool == "buildah":
        return ("buildah", "inspect", "--type=image", "--format={{.FromImageID}}", image)
    return (tool, "image", "inspect", "--format={{.Id}}", image)


def apptainer_build(tool: str, target: Path, source: str, *, sandbox: bool = False, plain_http: bool = False) -> Argv:
    """`source` is docker://…, docker-archive:FILE, a .sif or a folder (apptainer-build(1)).

    --fix-perms lets the owner delete a sandbox whose image has folders that nobody may write.
    """
    return (
        tool,
        "build",
        *(("--sandbox", "--fix-perms") if sandbox else ()),
        *(("--no-https",) if plain_http else ()),
        str(target),
        source,
    )


def enroot_import(reference: Reference, target: Path) -> Argv:
    """enroot writes docker://[REGISTRY#]IMAGE[:TAG], and takes a digest in the tag's place."""
    host = "" if reference.registry == "docker.io" else f"{reference.registry}#"
    return (
        "enroot",
        "import",
        f"--output={target}",
        f"docker://{host}{reference.repository}:{reference.digest or reference.tag}",
    )


def copy_tree(source: Path, target: Path) -> Argv:
    """`-T`: the folder itself, not into it."""
    return ("cp", "--archive", "--reflink=auto", "--no-target-directory", str(source), str(target))


def tar_tree(folder: Path, target: Path) -> Argv:
    """One layer; all files are root's, whoever unpacked them."""
    return (
        "tar", "--create", "--sort=name", "--numeric-owner", "--owner=0", "--group=0", f"--file={target}",
        f"--directory={folder}", ".",
    )  # fmt: skip


def untar(archive: Path, folder: Path) -> Argv:
    """Without device nodes, which only root could make."""
    return (
        "tar", "--extract", "--preserve-permissions", "--numeric-owner", "--anchored", "--exclude=dev/*",
        "--exclude=.dockerenv", f"--file={archive}", f"--directory={folder}",
    )  # fmt: skip
