"""Text of all packages of an installation, by domain: code, native, reference, literature, web."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from xgen.data.sources import documentation, tiny_sources

_NATIVE = (".h", ".hpp", ".cuh", ".c", ".cpp", ".inc")
_NOT_READ = frozenset({"__pycache__", "_vendor", "test_data"})
_MAX_FILE = 1 << 20  # bytes: beyond, it is a table that is called a module
_DOCUMENTED = ("torch", "transformers", "sympy", "pandas", "matplotlib", "scipy", "datasets", "pyarrow")


@dataclass(frozen=True)
class Text:
    id: str
    text: str
    source: str
    licence: str


def texts_of(domain: str) -> Iterator[Text]:
    """Documents of a domain, in an order that a hash of their names fixes. What is no UTF-8 is left out."""
    match domain:
        case "code":
            return _files((".py",))
        case "native":
            return _files(_NATIVE)
        case "reference":
            return _reference()
        case "literature":
            return _tiny("literature")
        case _:
            return _web()


def _files(suffixes: tuple[str, ...]) -> Iterator[Text]:
    root = Path(sysconfig.get_path("purelib"))
    roots = [root, *([Path(sysconfig.get_path("stdlib"))] if ".py" in suffixes else [])]
    paths = [(root, path) for root in roots for path in _walk(root, suffixes)]
    paths.sort(key=lambda pair: _order(f"{pair[1].relative_to(pair[0])}"))
    for root, path in paths:
        name = path.relative_to(root).as_posix()
        source, licence = ("cpython", "PSF-2.0") if root != roots[0] else _package(name.partition("/")[0])
        if text := _read(path):
            yield Text(f"{source}/{name}", text, source, licence)


def _walk(root: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _NOT_READ and name != "site-packages")
        for name in files:
            path = Path(folder, name)
            if path.suffix in suffixes and path.stat().st_size <= _MAX_FILE:
                yield path


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    return text if text.strip() else ""


def _reference() -> Iterator[Text]:
    """Documentation strings, one document a module; chapters of the language reference."""
    yield from _tiny("reference")
    root = Path(sysconfig.get_path("purelib"))
    paths = [path for name in _DOCUMENTED if (root / name).is_dir() for path in _walk(root / name, (".py",))]
    for path in sorted(paths, key=lambda path: _order(str(path.relative_to(root)))):
        name = path.relative_to(root).as_posix()
        package, _, module = name.partition("/")
        source, licence = _package(package)
        try:
            found = list(documentation(package, path, module))
        except (OSError, ValueError, SyntaxError, RecursionError):
            continue
        for _, text in found:
            yield Text(f"{source}-docs/{module}", text, f"{source}-docs", licence)


def _tiny(domain: str) -> Iterator[Text]:
    for source in tiny_sources():
        if source.domain != domain:
            continue
        for unit in source.units():
            try:
                read = list(unit.read())
            except (OSError, ValueError, SyntaxError):
                continue
            yield from (Text(f"{source.name}/{name}", text, source.name, source.licence) for name, text in read if text)


def _web() -> Iterator[Text]:
    """What packages say of themselves to the world: their pages on the index."""
    for package in sorted(importlib.metadata.distributions(), key=lambda found: _order(found.name)):
        text = str(package.metadata.get_payload())  # type: ignore[attr-defined]
        if len(text) > 400:
            yield Text(f"{package.name}/readme", text, "readme", _licence(package))


@cache
def _packages() -> dict[str, str]:
    return {top: names[0] for top, names in importlib.metadata.packages_distributions().items()}


@cache
def _package(top: str) -> tuple[str, str]:
    """Name and licence of the package that a folder belongs to."""
    name = _packages().get(top.removesuffix(".py"), top)
    try:
        return name, _licence(importlib.metadata.distribution(name))
    except importlib.metadata.PackageNotFoundError:
        return name, "unknown"


def _licence(package: importlib.metadata.Distribution) -> str:
    found = package.metadata
    said = next((found[key] for key in ("License-Expression", "License") if key in found), "")
    classified = [
        line.rpartition("::")[2].strip() for line in found.get_all("Classifier") or () if "License ::" in line
    ]
    short = said if said and len(said) < 60 and "\n" not in said else ""
    return short or next(iter(classified), "unknown")


def _order(name: str) -> bytes:
    return hashlib.blake2b(name.encode()).digest()
