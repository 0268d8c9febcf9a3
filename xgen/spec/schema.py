"""JSON schema of the job spec, of pipelines and of the cluster profile, for editors and for other programs."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from xgen.spec.cluster import Profile
from xgen.spec.kinds import KINDS, AnyJob
from xgen.spec.models import MODELS
from xgen.spec.pipeline import Pipeline
from xgen.spec.ssh import Pointer

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_EXTENDS = {
    "type": "string",
    "description": "a spec beside this one, whose keys this one adds to or replaces",
}
# What may stand for a whole mapping.
_SHORT = {
    "ModelSpec": {"enum": sorted(MODELS)},
    "Share": {"type": "number"},
    "Mount": {"type": "string"},
    "Init": {"type": "string"},
    "Checkpoints": {"type": "string"},
    "ChatSource": {"type": "string"},
    "Axis": {"type": "array"},
    "Points": {"anyOf": [{"enum": ["grid"]}, {"type": "array", "items": {"type": "object"}}]},
    "Frequency": {"enum": ["none", "fineweb2", "rehydrate"]},
}


def job_schema() -> dict[str, Any]:
    """Schema of a spec file; `extends` is resolved while loading, so it is added here."""
    schema = TypeAdapter(AnyJob).json_schema()
    definitions = schema["$defs"]
    # A base may provide anything, and a stage takes from the one before: no key is required of one file alone.
    for definition in definitions.values():
        definition.pop("required", None)
    schema["anyOf"] = schema.pop("oneOf")  # the kind may be the base's
    for name in (kind.__name__ for kind in KINDS.values()):
        definitions[name]["properties"]["extends"] = _EXTENDS
    for name, short in _SHORT.items():
        definitions[name] = {"anyOf": [short, definitions[name]]}
    return {"$schema": _DRAFT, "title": "xgen job spec", **schema}


def pipeline_schema() -> dict[str, Any]:
    """Schema of a pipeline's file."""
    schema = Pipeline.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        part.pop("required", None)
    schema["properties"]["extends"] = _EXTENDS
    return {"$schema": _DRAFT, **schema, "title": "xgen pipeline"}


def profile_schema() -> dict[str, Any]:
    """Schema of a profile: of a cluster, or of where one is reached over ssh."""
    schema: dict[str, Any] = TypeAdapter(Profile | Pointer).json_schema()
    return {"$schema": _DRAFT, "title": "xgen cluster profile", **schema}
