"""What all tests share: the checkout, and how to run `xgen` as a person does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What others extend is no job by itself.
BASES, SPECS = (
    [p for p in sorted((ROOT / "jobs").rglob("*.yaml")) if ("base" in (p.stem, p.parent.name)) == base]
    for base in (True, False)
)
# Where `make setup` installs all of slurm/packages.txt: what is missing there is a fault, and no reason to skip.
PROVISIONED = os.geteuid() == 0 and Path("/etc/debian_version").exists()


def xgen(
    *arguments: str, cwd: Path = ROOT, env: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "xgen.cli.main", *arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What runs in one process under `-n 2`: a file, for its fixtures are shared; and all that needs what there is once
    on a machine: the dev SLURM, the container tools, their image folder. (pytest-xdist 3.8's groups do nothing under
    pytest 9.)"""
    from xdist.scheduler import LoadScopeScheduling

    class ByPlace(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "machine" if file.startswith(("tests/cluster/", "tests/images/")) else file

    return ByPlace(config, log)


@pytest.fixture(autouse=True)
def _no_personal_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the profiles of the person who runs the tests, nor their default cluster."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("XGEN_CLUSTER", raising=False)
