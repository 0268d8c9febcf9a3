"""JSON schema of the job spec and of the cluster profile, for editors and for other programs."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from xgen.spec.cluster import Profile
from xgen.spec.kinds import KINDS, AnyJob

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_EXTENDS = {
    "type": "string",
    "description": "a spec beside this one, whose keys this one adds to or replaces",
}


def job_schema() -> dict[str, Any]:
    """Schema of a spec file; `extends` is resolved while loading, so it is added here."""
    schema = TypeAdapter(AnyJob).json_schema()
    for name in (kind.__name__ for kind in KINDS.values()):
        schema["$defs"][name]["properties"]["extends"] = _EXTENDS
        # What a base spec may provide cannot be required of the file that extends it.
        schema["$defs"][name]["required"] = ["kind"]
    return {"$schema": _DRAFT, "title": "xgen job spec", **schema}


def profile_schema() -> dict[str, Any]:
    return {"$schema": _DRAFT, "title": "xgen cluster profile", **Profile.model_json_schema()}
