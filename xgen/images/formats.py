"""The formats of an image, and what each is called in the image folder."""

from __future__ import annotations

import re
from typing import get_args

from xgen.images.record import Format
from xgen.spec.errors import Problem, SpecError
from xgen.spec.image import is_registry_reference

FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIX: dict[Format, str] = {"folder": "", "sqsh": ".sqsh", "sif": ".sif", "tar": ".tar"}
CONTENT: dict[Format, str] = {"folder": "folder", "sqsh": "image.sqsh", "sif": "image.sif", "tar": "image.tar"}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_name(name: str) -> str:
    """The name as it is, when a spec can say it and no format's suffix ends it. Raises SpecError."""
    suffix = next((s for s in SUFFIX.values() if s and name.endswith(s)), "")
    if suffix:
        raise SpecError(Problem("", "--name", f"{name!r} ends in {suffix}; write {name.removesuffix(suffix)}"))
    if not _NAME.fullmatch(name) or is_registry_reference(name):
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "trainer"
        raise SpecError(Problem("", "--name", f"{name!r} is no name for an image; write e.g. {plain}"))
    return name


def check_format(text: str) -> Format:
    """Raises SpecError that names the formats there are."""
    for known in FORMATS:
        if text == known:
            return known
    raise SpecError(Problem("", "--format", f"{text!r} is not known; write one of {', '.join(FORMATS)}"))


def split_name(entry: str) -> tuple[str, Format | None]:
    """`trainer.sqsh` in the image folder -> (`trainer`, `sqsh`); None where only a look at it can tell."""
    for known, suffix in SUFFIX.items():
        if suffix and entry.endswith(suffix):
            return entry.removesuffix(suffix), known
    return entry, None
