"""A real Prometheus for the tests, or the reason why there is none."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

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
    """What `xgen monitor up` has started."""

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
    return lambda *arguments: run(path, *arguments, timeout=240)  # all rules over hours: CPU, not waiting


def monitor(action: str, state: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """`xgen monitor`"""
    return run(sys.executable, "-m", "xgen.cli.main", "monitor", action, "--state", state, *options)


def write_profile(file: Path, run_root: Path, port: int = 0) -> Path:
    """A cluster without SLURM; `port` of its exporter."""
    profile = {"scheduler": "local", "run_root": str(run_root), "metrics": {"port": port}}
    file.write_text(yaml.safe_dump(profile | {"partitions": {"main": {"max_time": "1d"}}}))
    return file


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevPrometheus]:
    """Without an exporter."""
    tool("prometheus")
    tool("prometheus-alertmanager")
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    run_root, state = folder / "runs", folder / "state"
    profile = write_profile(folder / "cluster.yaml", run_root, free_port())
    ports = ["--port", str(port), "--alertmanager-port", str(free_port())]
    done = monitor("up", state, "--cluster", profile, *ports, "--interval", "1s", "--no-exporter")
    assert done.returncode == 0, done.stderr
    try:
        yield DevPrometheus(f"http://127.0.0.1:{port}", run_root, state)
    finally:
        done = monitor("down", state, "--remove")
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["cluster.yaml", "runs"]
