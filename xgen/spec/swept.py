"""The spec that a sweep holds, taken in from its file, and what every job has moved from it to the sweep."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xgen.spec.base import nearest
from xgen.spec.errors import Problem, SpecError
from xgen.spec.job import Job
from xgen.spec.kinds import KINDS
from xgen.spec.layers import Key, origin_of, read_layers


def take_in(raw: dict[str, Any], origins: dict[Key, str], file: str, root: Path) -> None:
    """A path becomes the spec that it leads to; relative ones start at the project's root. Raises SpecError."""
    if raw.get("kind") != "sweep" or not isinstance(text := raw.get("spec"), str):
        return
    home = os.path.expanduser(text)  # noqa: PTH111 - leaves the ~ of whom it does not know
    path = root / os.path.expandvars(home)
    if not path.is_file():
        where = origin_of(origins, ("spec",), file)
        raise SpecError(Problem(where, "spec", f"{text} is no file in {root}; write the path of a spec"))
    raw["spec"], of_base = read_layers(path)
    origins |= {("spec", *key): place for key, place in of_base.items()}


def hoist(raw: dict[str, Any], origins: dict[Key, str], file: str) -> None:
    """What every job has and the base says is the sweep's, where that says nothing else. Raises SpecError."""
    if raw.get("kind") != "sweep" or not isinstance(base := raw.get("spec"), dict):
        return
    kind = base.get("kind")
    known = {name: model for name, model in KINDS.items() if name != "sweep"}
    if not isinstance(kind, str) or kind not in known:
        said = "is missing" if kind is None else f"{kind!r} cannot be swept"
        raise SpecError(
            Problem(origin_of(origins, ("spec", "kind"), file), "spec.kind", f"{said}; {nearest(str(kind), known)}")
        )
    for name in Job.model_fields:
        if name not in base:
            continue
        for key in [key for key in origins if key[:2] == ("spec", name)]:
            origins.setdefault(key[1:], origins[key])
        raw[name] = _below(base.pop(name), raw[name]) if name in raw else base.pop(name)
    for name, field in known[kind].model_fields.items():  # where the kind has another default than other jobs have
        if name not in Job.model_fields or field.default_factory is Job.model_fields[name].default_factory:
            continue
        default = field.get_default(call_default_factory=True, validated_data={}).model_dump(mode="json")
        raw[name] = _below(default, raw[name]) if name in raw else default


def _below(base: Any, own: Any) -> Any:
    """Mappings key by key; of anything else the sweep's own."""
    if not isinstance(base, Mapping) or not isinstance(own, Mapping):
        return own
    return {**base, **{key: _below(base[key], one) if key in base else one for key, one in own.items()}}
