"""The container of a job: the image, and what the work needs around it. The cluster says which runtime starts it."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from xgen.spec.base import Strict
from xgen.spec.image import is_registry_reference, parse_reference
from xgen.spec.units import Bytes

RuntimeName = Literal["none", "pyxis", "enroot", "docker", "podman", "apptainer", "singularity", "charliecloud"]


class Mount(Strict):
    """A folder or file of the host in the container, at the same path unless `target` says otherwise."""

    source: str
    target: str | None = None
    read_only: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        source, *rest = value.split(":")
        mode = rest.pop() if rest and rest[-1] in ("ro", "rw") else "rw"
        if len(rest) > 1:
            raise ValueError(f"{value!r} has too many ':'; write SOURCE, SOURCE:TARGET or SOURCE:TARGET:ro")
        return {"source": source, "target": rest[0] if rest else None, "read_only": mode == "ro"}

    @model_validator(mode="after")
    def _absolute_target(self) -> Self:
        if self.target is not None and not self.target.startswith("/"):
            raise ValueError(f"target {self.target!r} is not absolute; write /{self.target}")
        for path in (self.source, self.target or ""):
            if any(ord(c) < 32 for c in path):
                raise ValueError(f"{path!r} holds a control character, which no runtime takes; rename it")
        return self

    @property
    def place(self) -> str:
        """Where it is in the container."""
        return self.target or self.source


class Container(Strict):
    """The image the work runs in, and what it needs around it."""

    image: str | None = Field(
        default=None, description="a name in the profile's image_dir, a path, or REGISTRY/NAME:TAG, which is pinned"
    )
    mounts: list[Mount] = Field(
        default_factory=list, description="`/path`, `/path:/in/container` or `/path:/in/container:ro`"
    )
    workdir: str | None = Field(default=None, description="where the work starts; default: the code snapshot")
    shm: Bytes | None = Field(
        default=None, description="room that /dev/shm must have on each node: containers share the host's"
    )
    entrypoint: bool = Field(default=False, description="run the image's entrypoint around the work")
    as_root: bool = Field(default=False, description="be root inside, and still the submitting user outside")

    @field_validator("image")
    @classmethod
    def _image(cls, value: str | None) -> str | None:
        if value is not None and is_registry_reference(value):
            parse_reference(value)
        if value is not None and value.endswith((".sqsh", ".sif", ".tar")) and "/" not in value:
            bare = PurePosixPath(value).stem
            raise ValueError(
                f"{value!r} is a file without a path, which pyxis takes for a name in a registry; "
                f"write {bare} for the image in image_dir, or ./{value}"
            )
        return value

    @field_validator("workdir")
    @classmethod
    def _workdir(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("/"):
            raise ValueError(f"{value!r} is not absolute; write /{value}")
        return value
