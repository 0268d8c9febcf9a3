"""From YAML files and `--set` to a validated spec. Every error names the file, the key and the fix."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from xgen.spec.base import nearest
from xgen.spec.cluster import Profile
from xgen.spec.errors import Problem, SpecError
from xgen.spec.image import is_registry_reference
from xgen.spec.kinds import KINDS, Work
from xgen.spec.layers import Key, apply_override, origin_of, parse_key, read_layers, show_key
from xgen.spec.ssh import ElsewhereError, Pointer
from xgen.spec.swept import hoist, take_in

_PATH_KEYS = {
    "store", "mounts", "mounts.source", "run_root", "image_dir", "python", "file", "out", "tokenizer", "path", "work",
    "earlier", "regmix", "template", "hf", "haystack", "qa_1", "qa_2", "datasets", "include", "cache",
}  # fmt: skip
_PATHS_BELOW = {
    "stores": "store",
    "sources": "path",
    "labels": "path",
    "url_lists": "path",
}  # all that stands below is one
_NAME_OR_PATH = {"image", "run", "model", "init", "checkpoints"}
_WORDS = {"template": {"auto", "none"}}  # that stand where a path may
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml is ten times faster, where PyYAML has it
ModelT = TypeVar("ModelT", bound=BaseModel)
# What pydantic says of a wrong type, in the words of the people who write specs.
_PLAIN_WORDS = {
    "int_parsing": "is not a whole number",
    "int_type": "is not a whole number",
    "int_from_float": "is not a whole number",
    "finite_number": "is not a finite number",
    "too_short": "is empty; write at least one entry",
    "float_parsing": "is not a number",
    "bool_parsing": "is not true or false",
    "string_type": "is not text; put quotes around it",
    "list_type": "is not a list; write [a, b]",
    "model_type": "is not a mapping; write keys and values below it",
    "model_attributes_type": "is not a mapping; write keys and values below it",
    "dict_type": "is not a mapping; write keys and values below it",
}


@dataclass(frozen=True)
class LoadedJob:
    """A spec, and what is needed to speak of it: where each key stands, where relative paths begin."""

    job: Work
    file: str
    root: Path
    origins: Mapping[Key, str]

    def problem(self, key: str, message: str) -> Problem:
        """A problem at a key such as `stages[0].seq_len`, with the file that set it."""
        return Problem(origin_of(self.origins, parse_key(key), self.file), key, message)


def load_job(path: Path, overrides: Sequence[str] = (), root: Path | None = None) -> LoadedJob:
    """Read a spec with what it extends, apply `--set` overrides, validate its shape.

    Relative paths in it start at the project's root: the nearest folder above the spec with a pyproject.toml
    or a .git, unless `root` says otherwise. Raises SpecError with every problem found.
    """
    raw, origins = read_layers(path)
    root = root or project_root(path.resolve().parent)
    take_in(raw, origins, str(path), root)
    for override in overrides:
        apply_override(raw, origins, override)
    take_in(raw, origins, str(path), root)  # by --set spec=PATH
    hoist(raw, origins, str(path))
    kind = raw.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        said = "is missing" if kind is None else f"{kind!r} is no kind of work"
        fix = "name the spec of one of its steps" if kind == "pipeline" else nearest(str(kind), KINDS)
        raise SpecError(Problem(origin_of(origins, ("kind",), str(path)), "kind", f"{said}; {fix}"))
    job = validate(KINDS[kind], with_absolute_paths(raw, root), str(path), origins)
    assert isinstance(job, Work)
    return LoadedJob(job, str(path), root, origins)


def load_resolved(path: Path) -> Work:
    """The resolved spec of a run directory. Raises SpecError when it was edited into something invalid."""
    return load_job(path).job


def load_profile(path: Path) -> Profile:
    """Read a cluster profile; relative paths start at the root of the project that holds it. Raises ElsewhereError for
    one whose cluster is reached over ssh."""
    raw, origins = read_layers(path)
    if "ssh" in raw:
        if others := [key for key in raw if key != "ssh"]:
            said = f"a profile with ssh: has nothing else; {', '.join(others)} belongs in {path.name} on the cluster"
            raise SpecError(Problem(origin_of(origins, (others[0],), str(path)), others[0], said))
        raise ElsewhereError(path.stem, validate(Pointer, raw, str(path), origins).ssh)
    return validate(Profile, with_absolute_paths(raw, project_root(path.resolve().parent)), str(path), origins)


def find_profile(name: str | None, start: Path) -> tuple[str, Path]:
    """Name and file of the profile: `name` (or $XGEN_CLUSTER) is a file, or a name that is looked up.

    Looked up in ~/.config/xgen/clusters, then in slurm/clusters of the project around `start`, then of the
    checkout that xgen runs from. Raises SpecError that lists what there is.
    """
    said_by = "--cluster" if name else "$XGEN_CLUSTER"
    wanted = name or os.environ.get("XGEN_CLUSTER") or None
    known = known_profiles(start)
    if wanted is None:
        raise SpecError(Problem("", "cluster", f"none named; write --cluster NAME or set XGEN_CLUSTER: {_list(known)}"))
    if wanted.endswith((".yaml", ".yml")) or "/" in wanted:
        if not Path(wanted).is_file():
            raise SpecError(Problem("", said_by, f"{wanted} is no file; write the path of a cluster profile"))
        return Path(wanted).stem, Path(wanted)
    if wanted not in known:
        raise SpecError(Problem("", said_by, f"{wanted!r} is no known cluster; known: {_list(known)}"))
    return wanted, known[wanted]


def profile_folder() -> Path:
    """Of the profiles of this person."""
    return Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "xgen" / "clusters"


def known_profiles(start: Path) -> dict[str, Path]:
    """Files of profiles by name; of one name the first that `find_profile` comes to."""
    folders = (
        profile_folder(),
        project_root(start.resolve()) / "slurm" / "clusters",
        Path(__file__).resolve().parents[2] / "slurm" / "clusters",
    )
    return {p.stem: p for folder in reversed(folders) if folder.is_dir() for p in sorted(folder.glob("*.yaml"))}


def dump(model: BaseModel) -> str:
    """The resolved form as YAML, which `load_job` or `load_profile` reads back to an equal model."""
    dumped = model.model_dump(mode="json")
    _leave_out_none(model, dumped)
    return yaml.dump(dumped, Dumper=_DUMPER, sort_keys=False)


def _leave_out_none(value: object, dumped: Any) -> None:
    """Keys without a value, but for those that somebody has switched off: their default is another."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            own = getattr(value, name)
            if name not in dumped:  # a part that is another's
                continue
            if own is None and field.get_default(call_default_factory=True, validated_data={}) is None:
                del dumped[name]
            else:
                _leave_out_none(own, dumped[name])
    elif isinstance(value, dict):
        for key, own in value.items():
            _leave_out_none(own, dumped[key if key in dumped else str(key)])
    elif isinstance(value, list | tuple):
        for own, one in zip(value, dumped, strict=True):
            _leave_out_none(own, one)


def project_root(folder: Path) -> Path:
    """The nearest folder upwards with a pyproject.toml or a .git, else `folder` itself."""
    for candidate in (folder, *folder.parents):
        if (candidate / "pyproject.toml").is_file() or (candidate / ".git").exists():
            return candidate
    return folder


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def with_absolute_paths(value: Any, root: Path, key: str = "") -> Any:
    """What YAML says of a spec or a profile, each relative path in it begun at `root`."""
    if isinstance(value, dict):
        below = _PATHS_BELOW.get(key)
        if key in ("over", "listed", "points"):  # keys of another spec, as --set writes them
            return {k: with_absolute_paths(_values(v), root, _last(str(k))) for k, v in value.items()}
        prefix = "mounts." if key == "mounts" else ""  # elsewhere a source is a collection of texts
        return {k: with_absolute_paths(v, root, below or f"{prefix}{k}") for k, v in value.items()}
    if isinstance(value, list):
        return [with_absolute_paths(v, root, key) for v in value]
    if not isinstance(value, str):
        return value
    named = key in _NAME_OR_PATH and ("/" not in value or is_registry_reference(value))
    named |= value in _WORDS.get(key, ())
    if key == "path":
        value = value.removeprefix("file://")
        named |= value.startswith("hf:")
    named |= key in ("path", "file") and "://" in value  # which a folder before it would hide
    if key in _PATH_KEYS | _NAME_OR_PATH and not named:
        # Joined, not resolved: .venv/bin/python is a link that must stay the name of the environment.
        head, colon, tail = value.partition(":") if key.startswith("mounts") else (value, "", "")
        home = os.path.expanduser(head)  # noqa: PTH111 - leaves the ~ of whom it does not know
        return f"{root / os.path.expandvars(home)}{colon}{tail}"
    return value


def validate(model: type[ModelT], raw: dict[str, Any], file: str, origins: Mapping[Key, str]) -> ModelT:
    """Raises SpecError with every problem, each with the file that set its key."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = []
        for detail in error.errors():
            location = tuple(detail["loc"])
            key, _ = _place(location, model, raw)
            if detail["type"] == "extra_forbidden":
                message = f"unknown key; {nearest(str(key[-1]), _fields(_place(location[:-1], model, raw)[1]))}"
            elif detail["type"] == "missing":
                message = "is missing; add it"
            elif detail["type"] == "union_tag_not_found":
                key, message = (*key, "kind"), "is missing; add it"
            elif detail["type"] == "union_tag_invalid":
                key, message = (*key, "kind"), _unknown(detail["ctx"]["tag"], detail["ctx"]["expected_tags"])
            else:
                message = _plain(detail["type"], detail["input"], detail["msg"], detail.get("ctx", {}))
            problems.append(Problem(origin_of(origins, key, file), show_key(key), message))
        raise SpecError(*problems) from None


def _last(text: str) -> str:
    """What says of a key such as `data.stores.web` whether it is a path."""
    parts = [str(part) for part in parse_key(text) if isinstance(part, str)] or [""]
    return next((below for part in parts[:-1] if (below := _PATHS_BELOW.get(part))), parts[-1])


def _values(axis: Any) -> Any:
    """Of a key of a sweep: {choice: [VALUE]} is the same as the list."""
    return axis["choice"] if isinstance(axis, dict) and list(axis) == ["choice"] else axis


def _plain(kind: str, value: Any, message: str, context: Mapping[str, Any]) -> str:
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind in _PLAIN_WORDS:
        return f"{'null' if value is None else repr(value)} {_PLAIN_WORDS[kind]}"
    if kind == "literal_error":
        return _unknown(value, context.get("expected", ""))
    bound = next((f"{word} {context[k]}" for k, word in _BOUNDS.items() if k in context), None)
    return f"{value!r} is out of range; write a value {bound}" if bound else f"{value!r}: {message}"


def _unknown(value: Any, expected: str) -> str:
    choices = re.findall(r"'([^']*)'", expected)
    return f"{value!r} is not known; {nearest(str(value), choices) if choices else f'write {expected}'}"


_BOUNDS = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}


def _place(location: Key, model: type[BaseModel], raw: Any) -> tuple[Key, list[Any]]:
    """Where that stands in the spec, without the kind that chose among models and the 0 of what is no list; and the
    types of what may stand there."""
    key: list[str | int] = []
    here: list[Any] = [model]
    for part in location:
        if len(here) > 1 and (chosen := [one for one in here if _is_model(one) and part in _kinds(one)]):
            here = chosen
            continue
        here = [below for one in here for below in _below(one, part)]
        if part == 0 and isinstance(raw, dict):
            continue
        key.append(part)
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            raw = None
    return tuple(key), here


def _below(annotation: Any, part: str | int) -> list[Any]:
    """The types of what stands at a key or an index of it."""
    if _is_model(annotation):
        return _choices(annotation.model_fields[part].annotation) if part in annotation.model_fields else []
    return _choices(get_args(annotation)[-1]) if get_origin(annotation) in (dict, list) else []


def _choices(annotation: Any) -> list[Any]:
    """The types of a union, without what is annotated to them."""
    if get_origin(annotation) is Annotated:
        return _choices(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [one for choice in get_args(annotation) for one in _choices(choice)]
    return [annotation]


def _fields(types: list[Any]) -> set[str]:
    fields = {name for one in types if _is_model(one) for name in one.model_fields}
    return fields | {"extends"} if fields else set()


def _kinds(model: type[BaseModel]) -> tuple[Any, ...]:
    return get_args(model.model_fields["kind"].annotation) if "kind" in model.model_fields else ()


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)
