"""Specs in layers: `extends`, then `--set`, merged key by key, with the file that set each key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

try:  # ten times as fast, where PyYAML was built with it
    from yaml import CSafeLoader as _SafeLoader
except ImportError:
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

from xgen.spec.errors import Problem, SpecError

Key = tuple[str | int, ...]


class _Loader(_SafeLoader):
    """YAML as the standard has it: a key that stands twice is a mistake, and not the last one's victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.MarkedYAMLError(problem=f"{key} stands twice; remove one", problem_mark=key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise SpecError(Problem(str(path), "", "no such file")) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(Problem(str(path), "", f"cannot be read: {error}")) from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}" if error.problem_mark else ""
        said = f"is not YAML: {error.problem}"
        lines = path.read_text(encoding="utf-8").splitlines()
        at = error.problem_mark.line if error.problem_mark else len(lines)  # the end is a line behind the last
        if "${" in "".join(lines[at : at + 1]):
            said += '; within { } or [ ] put quotes around "${STEP.VALUE}"'
        raise SpecError(Problem(str(path), line, said)) from None
    except yaml.YAMLError as error:
        raise SpecError(Problem(str(path), "", f"is not YAML: {str(error).splitlines()[0]}")) from None
    if not isinstance(raw, dict):
        raise SpecError(Problem(str(path), "", "is not a mapping; write keys and values, e.g. kind: pretrain"))
    return raw


def read_layers(path: Path, seen: tuple[Path, ...] = ()) -> tuple[dict[str, Any], dict[Key, str]]:
    """The merged content of a file and of what it extends, and the file that set each key."""
    return _read_mapping(_read_yaml(path), path, seen)


def _read_mapping(
    raw: dict[str, Any], path: Path, seen: tuple[Path, ...], at: str = ""
) -> tuple[dict[str, Any], dict[Key, str]]:
    base_name = raw.pop("extends", None)
    merged: dict[str, Any] = {}
    origins: dict[Key, str] = {}
    if base_name is not None:
        base = path.parent / str(base_name)
        if base.resolve() in (*seen, path.resolve()):
            raise SpecError(
                Problem(str(path), f"{at}extends", f"{base_name} extends this file again; remove one of them")
            )
        if not base.is_file():
            raise SpecError(Problem(str(path), f"{at}extends", f"{base_name} is no file beside {path.name}"))
        merged, origins = read_layers(base, (*seen, path.resolve()))
    # A spec within the spec (`proxy` of a regmix) may extend another.
    inner = {
        key: _read_mapping(one, path, seen, f"{key}.")
        for key, one in raw.items()
        if isinstance(one, dict) and "extends" in one
    }
    _merge(merged, raw | {key: mapping for key, (mapping, _) in inner.items()}, str(path), origins, ())
    for key, (_, places) in inner.items():
        origins |= {(key, *place): file for place, file in places.items()}
    return merged, origins


def _merge(into: dict[str, Any], layer: dict[str, Any], file: str, origins: dict[Key, str], at: Key) -> None:
    """Mappings merge key by key, anything else replaces what was there."""
    for key, value in layer.items():
        here = (*at, key)
        origins[here] = file
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, file, origins, here)
        else:
            into[key] = value
            _replace_origins(value, file, origins, here)


def _replace_origins(value: Any, file: str, origins: dict[Key, str], at: Key) -> None:
    for gone in [key for key in origins if len(key) > len(at) and key[: len(at)] == at]:
        del origins[gone]
    _note_origins(value, file, origins, at)


def _note_origins(value: Any, file: str, origins: dict[Key, str], at: Key) -> None:
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        origins[(*at, key)] = file
        _note_origins(inner, file, origins, (*at, key))


def apply_override(raw: dict[str, Any], origins: dict[Key, str], override: str) -> None:
    """Apply one `--set path.to.key=value`; the value is read as YAML."""
    text, value = read_override(override)
    if parse_key(text) == ("extends",):
        raise SpecError(Problem("--set", text, "is read before --set; write it into the file"))
    set_key(raw, origins, text, value)


def read_override(override: str) -> tuple[str, Any]:
    """Key, as it is written, and value of `path.to.key=value`. Raises SpecError."""
    text, separator, value_text = override.partition("=")
    if not separator or not parse_key(text):
        raise SpecError(Problem("--set", override, "is not KEY=VALUE; write e.g. --set resources.nodes=4"))
    try:
        return text, yaml.load(value_text, Loader=_Loader)
    except (yaml.YAMLError, UnicodeError):
        raise SpecError(Problem("--set", text, f"{value_text!r} is not YAML; put quotes around it")) from None


def set_key(raw: dict[str, Any], origins: dict[Key, str], text: str, value: Any, said_by: str = "--set") -> None:
    """Put a value where the key that `text` names stands. Raises SpecError where it cannot stand."""
    key = parse_key(text)
    holder: Any = raw
    for depth, part in enumerate(key[:-1]):
        origins.setdefault(key[: depth + 1], said_by)  # a mapping that this makes
        holder = _step_into(holder, part, key[: depth + 1], text, said_by)
    last = key[-1]
    if isinstance(holder, list):
        _step_into(holder, last, key, text, said_by)
        holder[int(last)] = value
    elif isinstance(holder, dict):
        holder[str(last)] = value
    else:
        whole = show_key(key[:-1])
        raise SpecError(Problem(said_by, text, f"{whole} is {holder!r}, which has no parts; write {whole}=VALUE"))
    origins[key] = said_by
    _replace_origins(value, said_by, origins, key)


def _step_into(holder: Any, part: str | int, at: Key, text: str, said_by: str) -> Any:
    if isinstance(holder, dict):
        return holder.setdefault(str(part), {})
    if isinstance(holder, list):
        if isinstance(part, int) and part < len(holder):
            return holder[part]
        names = ", ".join(str(i) for i in range(len(holder)))
        raise SpecError(Problem(said_by, text, f"{part!r} is no entry; write one of {names}"))
    raise SpecError(Problem(said_by, text, f"{show_key(at[:-1])} is {holder!r}: no parts"))


def parse_key(text: str) -> Key:
    """`stages.0.lr.peak` and `stages[0].lr.peak` are the same key."""
    parts = [p for p in re.split(r"[.\[\]]+", text.strip()) if p]
    return tuple(int(p) if p.isdecimal() and p.isascii() else p for p in parts)


def show_key(key: Key) -> str:
    """`stages[0].lr.peak`."""
    shown = ""
    for part in key:
        shown += f"[{part}]" if isinstance(part, int) else f".{part}" if shown else part
    return shown


def origin_of(origins: Mapping[Key, str], key: Key, default: str) -> str:
    """The file that set this key or the nearest one around it."""
    for length in range(len(key), 0, -1):
        if key[:length] in origins:
            return origins[key[:length]]
    return default


def places(path: Path, keys: Iterable[Key]) -> dict[Key, str]:
    """`FILE:LINE` of each key, or of the nearest one around it, in the file that sets it, which may be one that this
    file extends; the file alone where none is written. Raises SpecError."""
    _, origins = read_layers(path)
    return {key: _place(origin_of(origins, key, str(path)), key) for key in keys}


def _place(file: str, key: Key) -> str:
    node = yaml.compose(Path(file).read_text(encoding="utf-8"), Loader=_SafeLoader)
    line: int | None = None
    for part in key:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        elif isinstance(node, yaml.MappingNode) and (pair := [p for p in node.value if p[0].value == str(part)]):
            line, node = pair[0][0].start_mark.line, pair[0][1]
        else:
            break
    return file if line is None else f"{file}:{line + 1}"


def in_flow(value: Any) -> str:
    """A value on one line of YAML: `{max_time: 1d, default: true}`."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
