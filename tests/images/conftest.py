"""Image folders, and the storage and daemons of container tools, which are gone after the test."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images import made
from xgen.images.store import remove_tree


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "images"
    remove_tree(tmp_path / "images")


@pytest.fixture
def containers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A storage of our own for podman, buildah and skopeo."""
    place = Path(tempfile.mkdtemp(prefix="xgen-"))
    made.container_settings(place, "vfs", monkeypatch)
    yield place
    remove_tree(place)


@pytest.fixture
def dockerd(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Docker daemon of the test's own; it needs root."""
    place = tmp_path_factory.mktemp("dockerd")
    socket = f"unix://{place}/s"
    options = ("--iptables=false", "--ip-masq=false", "--bridge=none", "--storage-driver=vfs")
    argv = ["dockerd", "--data-root", f"{place}/d", "--exec-root", f"{place}/e", "-p", f"{place}/pid", "-H", socket]
    with (place / "log").open("w") as log:
        daemon = subprocess.Popen([*argv, *options], stdout=log, stderr=log)
    monkeypatch.setenv("DOCKER_HOST", socket)
    try:
        end = time.monotonic() + 30
        while subprocess.run(["docker", "version"], capture_output=True).returncode != 0:
            if daemon.poll() is not None or time.monotonic() > end:
                pytest.fail(f"dockerd does not start: {(place / 'log').read_text()[-300:]}")
            time.sleep(0.2)
        yield
    finally:
        daemon.terminate()
        daemon.wait(30)
        # Its builder's, left mounted, would keep the folder for ever. A test may have another PATH.
        subprocess.run(["/bin/umount", f"{place}/e/netns/default"], check=False, timeout=30, capture_output=True)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that takes a second to build, in a checkout of its own, and its base."""
    folder = tmp_path / "checkout" / "docker" / "tiny"
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(made.TINY)
    (folder / "motd").write_text("first\n")
    (folder.parents[1] / "pyproject.toml").write_text("")
    made.base_archive(folder.parents[1] / "base.tar")
    return folder


@pytest.fixture
def base(recipe: Path) -> Path:
    return recipe.parents[1] / "base.tar"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody's own logins."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"
