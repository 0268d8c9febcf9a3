"""A real Prometheus for the tests, or the reason why there is none."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

MONITORING = ROOT / "monitoring"


def tool(name: str) -> str:
    """Path of a program of Prometheus. Where `make setup` installs it, its absence is a failure."""
    found = shutil.which(name)
    if found:
        return found
    if os.geteuid() == 0 and Path("/etc/debian_version").exists():
        pytest.fail(f"{name} is not installed; write: make setup")
    pytest.skip(f"{name} is not installed")


def run(*command: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=timeout, check=False)


@dataclass(frozen=True)
class DevPrometheus:
    """What `monitoring/dev/up` has started."""

    url: str
    run_root: Path
    state: Path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def promtool() -> Callable[..., subprocess.CompletedProcess[str]]:
    path = tool("promtool")
    return lambda *arguments: run(path, *arguments)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevPrometheus]:
    tool("prometheus")
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    run_root, state = folder / "runs", folder / "state"
    options: list[str | Path] = ["--state", state, "--run-root", run_root, "--port", str(port), "--interval", "1s"]
    done = run(MONITORING / "dev" / "up", *options)
    assert done.returncode == 0, done.stderr
    try:
        yield DevPrometheus(f"http://127.0.0.1:{port}", run_root, state)
    finally:
        done = run(MONITORING / "dev" / "down", "--state", state)
        assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["runs"]
