"""The import floors of the design: an arrow points down only, and torch stays upstairs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

# What each part may import of the others; the design's table.
FLOORS: dict[str, set[str]] = {
    "spec": set(),
    "hang": set(),
    "runs": {"hang"},
    "drawing": set(),
    "plan": {"spec"},
    "images": {"spec", "runs"},
    "cluster": {"spec", "runs", "images"},
    "notify": {"spec", "runs", "drawing"},
    "metrics": {"spec", "runs", "cluster", "notify"},
    "remote": {"spec", "runs", "cluster"},
    "watch": {"spec", "runs", "plan", "drawing", "cluster", "metrics"},
    "data": {"spec", "drawing"},
    "model": {"spec"},
    "train": {"model", "data", "runs", "metrics", "spec"},
    "engine": {"model", "spec"},
    "posttrain": {"engine", "train", "model", "data", "runs", "metrics", "spec"},
    "evals": {"engine", "train", "model", "data", "drawing", "runs", "spec"},
    "cli": {
        "spec", "hang", "runs", "plan", "images", "cluster", "metrics", "notify", "watch", "data", "drawing", "model",
        "train", "posttrain", "evals", "remote",
    },
}  # fmt: skip
WITH_TORCH = {"model", "engine", "train", "posttrain"}
# Third-party packages that the lower floors may use; everything else is the standard library.
PACKAGES: dict[str, set[str]] = {
    "spec": {"pydantic", "pydantic_core", "yaml"},
    "hang": set(),
    "runs": {"pydantic"},
    "drawing": set(),
    "plan": set(),
    "images": {"pydantic", "rich"},
    "cluster": {"pydantic", "submitit", "cryptography"},
    "notify": set(),
    "remote": {"pydantic", "yaml"},
    "watch": {"rich"},
    "metrics": {"prometheus_client", "pynvml", "yaml"},
    "cli": {"typer"},
}
MODULES = sorted((ROOT / "xgen").rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "xgen").parts[0]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of all that a module imports, at its top and inside its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; write it in full"
            base = node.module or ""
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def test_every_part_of_the_package_has_a_floor() -> None:
    parts = {part_of(path) for path in MODULES if path.parent != ROOT / "xgen"}
    assert parts == set(FLOORS)


@pytest.mark.parametrize("part", FLOORS)
def test_no_part_imports_a_higher_one(part: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in MODULES
        if part_of(path) == part
        for line, name in imports(path)
        if name.startswith("xgen.") and name.split(".")[1] not in FLOORS[part] | {part}
    ]
    assert found == []


@pytest.mark.parametrize("part", PACKAGES)
def test_a_lower_floor_uses_only_its_packages(part: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in MODULES
        if part_of(path) == part
        for line, name in imports(path)
        if name.partition(".")[0] not in sys.stdlib_module_names | PACKAGES[part] | {"xgen"}
    ]
    assert found == []


def test_torch_is_imported_by_the_model_and_the_training_only() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in MODULES
        if part_of(path) not in WITH_TORCH
        for line, name in imports(path)
        if name.partition(".")[0] in ("torch", "torchtitan")
    ]
    assert found == []


def test_importing_every_lower_module_loads_neither_torch_nor_a_higher_floor() -> None:
    lower = set(FLOORS) - WITH_TORCH
    # `python -m` entry points are imported too: their work stands under `if __name__ == "__main__"`.
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in MODULES if part_of(path) in lower]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith(".__main__")]
    code = (
        f"import importlib, json, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted(m for m in sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert set(names) <= loaded
    assert loaded & {"torch", "torchtitan", "transformers", "xgen.train", "xgen.model", "xgen.posttrain"} == set()


@pytest.mark.parametrize("part", ["spec", "runs", "plan", "cluster", "metrics", "data"])
def test_importing_a_part_does_not_load_torch(part: str) -> None:
    code = f"import sys, xgen.{part}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
