"""The recipe `cpu`, really built of a Debian base."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PROVISIONED, ROOT
from tests.images import made
from xgen.images.build import build_image
from xgen.images.progress import Silent
from xgen.images.recipe import find_recipe
from xgen.images.resolve import image_id
from xgen.images.store import remove_tree

needs_buildah = made.needs("buildah", "skopeo", "umoci")


@pytest.fixture(scope="module")
def debian_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What docker/debian-base makes, of a copy of the folder that `make setup` has made."""
    if not PROVISIONED:
        pytest.skip("needs root on Debian")
    folder = tmp_path_factory.mktemp("base")
    if (ROOT / ".cache/debian").is_dir():
        copy = ["cp", "--archive", "--reflink=auto", ROOT / ".cache/debian", folder / "debian"]
        subprocess.run(copy, check=True, timeout=120)
    make_base(folder / "debian.tar")
    yield folder / "debian.tar"
    remove_tree(folder)


def make_base(target: Path, python: Path = Path(sys.executable)) -> str:
    """Standard output of docker/debian-base."""
    command = [ROOT / "docker/debian-base", target, python]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_buildah
def test_the_cpu_recipe_is_built_without_a_network_and_holds_what_it_says(
    debian_base: Path, images: Path, containers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.fast_container_settings(containers, monkeypatch)
    try:
        found = find_recipe("cpu", ROOT)
        done = build_image(found, {"BASE": str(debian_base)}, "cpu", images, ["folder"], Silent(), tool="buildah")
    finally:
        subprocess.run(["buildah", "rm", "--all"], capture_output=True, timeout=60)
    inside = images / "cpu"
    assert json.loads((inside / "etc/xgen/image.json").read_text())["python"].startswith("3.11.")
    assert (inside / "etc/xgen/requirements.lock").read_bytes() == (found.folder / "requirements.lock").read_bytes()
    assert "xgen:x:10001:" in (inside / "etc/passwd").read_text()
    labels = done.imported.record.labels
    assert {name for name in labels if name.startswith("org.opencontainers.image.")} >= {
        f"org.opencontainers.image.{name}" for name in ("title", "version", "source", "base.name", "created")
    }
    assert labels["org.opencontainers.image.base.name"] == f"localhost/xgen-base:{image_id(debian_base)[7:19]}"


@pytest.mark.slow  # fetches torch: 3 GB
@needs_buildah
def test_the_cpu_recipe_with_torch_is_what_training_needs(
    images: Path, containers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's own Python, as debian:12-slim gives it; needs PyPI and its certificates."""
    made.fast_container_settings(containers, monkeypatch)
    base, python = tmp_path / "base.tar", Path("/usr/bin/python3")
    subprocess.run([ROOT / "docker/build-dev-image", tmp_path / "base", python], check=True, timeout=600)
    trusted = Path("/usr/local/share/ca-certificates")  # of a proxy on the way to PyPI
    shutil.copytree(trusted, tmp_path / "base" / trusted.relative_to("/"), dirs_exist_ok=True)
    make_base(base, python)
    args = {"BASE": str(base), "WITH_TORCH": "1"}
    build_image(find_recipe("cpu", ROOT), args, "cpu", images, ["folder"], Silent(), tool="buildah", network="host")
    inside = json.loads((images / "cpu/etc/xgen/image.json").read_text())["packages"]
    assert inside["torch"].startswith("2.15.") and inside["torchtitan"] == "0.3.0"


def test_a_debian_base_is_made_once(debian_base: Path) -> None:
    before = debian_base.stat()
    assert make_base(debian_base) == ""
    assert debian_base.stat().st_ino == before.st_ino
