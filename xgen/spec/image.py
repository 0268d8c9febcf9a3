"""How an image is named: in the image folder, by a path, or in a registry (docker's own syntax)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REGISTRY = re.compile(
    rf"(?:(?P<registry>[A-Za-z0-9.-]+(?::\d+)?)/)?(?P<repository>{_NAME}(?:/{_NAME})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
FILE_SUFFIXES = (".sqsh", ".sif", ".tar")


@dataclass(frozen=True)
class Reference:
    """An image in a registry, e.g. `nvcr.io/nvidia/pytorch:25.06-py3` (distribution/reference grammar)."""

    registry: str  # 'docker.io' where the text names none, as docker and podman read it
    repository: str
    tag: str  # '' beside a digest
    digest: str  # 'sha256:…', '' when only a tag is known

    @property
    def pinned(self) -> bool:
        return bool(self.digest)

    def with_digest(self, digest: str) -> Reference:
        return Reference(self.registry, self.repository, "", digest)

    def __str__(self) -> str:
        end = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"{self.registry}/{self.repository}{end}"


def parse_reference(text: str) -> Reference:
    """Raises ValueError that says what to write instead."""
    bare = text.removeprefix("docker://")
    if "#" in bare:
        raise ValueError(f"{text!r} is enroot's syntax; write {bare.replace('#', '/', 1)}: xgen converts it for enroot")
    match = _REGISTRY.fullmatch(bare)
    if match is None:
        raise ValueError(
            f"{text!r} names no image; write a name in image_dir, a path, or REGISTRY/NAME:TAG, "
            "e.g. nvcr.io/nvidia/pytorch:25.06-py3"
        )
    registry, repository, tag, digest = match.group("registry", "repository", "tag", "digest")
    if registry and not ("." in registry or ":" in registry or registry == "localhost"):
        registry, repository = None, f"{registry}/{repository}"  # `nvidia/cuda` is on docker.io
    registry = registry or "docker.io"
    if registry == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    return Reference(registry, repository, "" if digest else tag or "latest", digest or "")


def is_registry_reference(text: str) -> bool:
    """What has a tag, a digest, or a registry's host before the first slash; all else is a name or a path."""
    if text.startswith("docker://"):
        return True
    if text.startswith(("/", "./", "../", "~")):
        return False
    first, slash, _ = text.partition("/")
    return "#" in text or "@" in text or ":" in text or (bool(slash) and ("." in first or first == "localhost"))
