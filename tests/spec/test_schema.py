"""The JSON schema says the same as the loader: for editors and other programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from tests.conftest import BASES, SPECS, xgen
from xgen.spec import Command, Pretrain, Profile
from xgen.spec.kinds import KINDS
from xgen.spec.schema import job_schema, profile_schema


class _Yaml12(yaml.SafeLoader):
    """Editors read 4e-4 as a number; YAML 1.1 wants a point in it."""


_Yaml12.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9.]+e[-+]?[0-9]+"), list("0123456789"))


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema of a mapping with named keys, at any depth."""
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            yield schema
        for value in schema.values():
            yield from _objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _objects(value)


@pytest.mark.parametrize("schema", [job_schema(), profile_schema()], ids=["job", "profile"])
def test_unknown_keys_are_forbidden_at_every_depth(schema: dict[str, Any]) -> None:
    found = list(_objects(schema))
    assert len(found) > 3
    assert [o["title"] for o in found if o.get("additionalProperties") is not False] == []


def test_every_key_of_every_model_is_in_the_schema() -> None:
    schema = job_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["discriminator"]["mapping"] == {
        name: f"#/$defs/{name.capitalize()}"
        for name in (
            "command",
            "curate",
            "evaluate",
            "export",
            "preference",
            "pretrain",
            "regmix",
            "rl",
            "sft",
            "sweep",
        )
    }
    for model in (Pretrain, Command):
        properties = schema["$defs"][model.__name__]["properties"]
        assert set(properties) == set(model.model_fields) | {"extends"}
        assert properties["kind"]["const"] == model.__name__.lower()
    definitions = profile_schema()["$defs"]
    assert set(definitions["Profile"]["properties"]) == set(Profile.model_fields)
    assert set(definitions["Pointer"]["properties"]) == {"ssh"}


def test_quantities_are_text_with_examples() -> None:
    resources = job_schema()["$defs"]["Resources"]["properties"]
    assert resources["time"]["anyOf"] == [{"type": "string"}]
    assert resources["time"]["examples"] == ["90s", "5m", "24h"]


@pytest.mark.parametrize("spec", SPECS + BASES, ids=lambda p: p.name)
def test_the_keys_of_every_shipped_spec_are_in_the_schema(spec: Any) -> None:
    raw = yaml.safe_load(spec.read_text())
    kinds = [raw["kind"]] if "kind" in raw else KINDS
    known = [set(job_schema()["$defs"][kind.capitalize()]["properties"]) for kind in kinds]
    assert any(set(raw) <= keys for keys in known)


@pytest.mark.parametrize("spec", SPECS, ids=lambda p: p.name)
def test_every_shipped_spec_is_valid_and_a_typo_is_not(spec: Any) -> None:
    raw = yaml.load(spec.read_text(), Loader=_Yaml12)
    validator = jsonschema.Draft202012Validator(job_schema())
    assert list(validator.iter_errors(raw)) == []
    assert list(validator.iter_errors(raw | {"leed": "5m"}))


@pytest.mark.parametrize(
    ("arguments", "schema"), [((), job_schema()), (("--cluster-profile",), profile_schema())], ids=["job", "profile"]
)
def test_the_command_prints_it(arguments: tuple[str, ...], schema: dict[str, Any]) -> None:
    done = xgen("schema", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == schema
