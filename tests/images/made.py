"""Small images for tests, made without a network and without a tool: two layers, the second deletes a file."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.conftest import PROVISIONED, ROOT
from xgen.images.archive import write_archive
from xgen.images.config import ImageConfig

REVISION = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {
    "Env": ["PATH=/bin", "GREETING=good day", "EMPTY="],
    "Labels": {"org.opencontainers.image.revision": REVISION},
    "Entrypoint": ["/bin/sh", "-c"],
    "Cmd": ["echo it's here"],
    "WorkingDir": "/work/here",
    "Volumes": {"/data": {}},
}
BUSYBOX = "/bin/busybox"
TINY = """\
ARG BASE=docker.io/library/nothing:1
FROM ${BASE}
ARG GREETING=hello
COPY motd /etc/motd
RUN echo "$GREETING" >/etc/greeting
LABEL org.opencontainers.image.title="tiny"
"""


def needs(*tools: str) -> pytest.MarkDecorator:
    """Skips where a tool is missing. Where `make setup` installs them it does not: a missing one fails there."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return skip_unless(not missing, f"not installed: {', '.join(missing)}")


def skip_unless(there: bool, reason: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not there and not PROVISIONED, reason=reason)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def needs_busybox() -> pytest.MarkDecorator:
    return skip_unless(runnable(), "no static busybox")


def runnable() -> bool:
    return Path(BUSYBOX).is_file()


def layer(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def member(
    name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, target: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname = kind, mode, target
    return info, content


def layers(mark: bytes = b"") -> list[bytes]:
    shell = Path(BUSYBOX).read_bytes() if runnable() else b"no shell"
    first = layer(
        member("bin", kind=tarfile.DIRTYPE, mode=0o755),
        member("bin/busybox", shell, mode=0o755),
        member("bin/sh", kind=tarfile.SYMTYPE, target="busybox"),
        member("etc", kind=tarfile.DIRTYPE, mode=0o755),
        member("etc/deleted", b"by the second layer"),
        member("etc/motd", b"first"),
        member("etc/resolv.conf", kind=tarfile.SYMTYPE, target="/run/systemd/resolve/stub-resolv.conf"),
        member("locked", kind=tarfile.DIRTYPE, mode=0o500),
        member("locked/secret", b"s", mode=0o000),
    )
    second = layer(
        member("etc/.wh.deleted"),
        member("etc/motd", b"second" + mark),
        member("bin/motd", kind=tarfile.LNKTYPE, target="etc/motd"),
    )
    return [first, second]


def config_text(contents: list[bytes]) -> bytes:
    digests = [f"sha256:{hashlib.sha256(c).hexdigest()}" for c in contents]
    rootfs = {"type": "layers", "diff_ids": digests}
    return json.dumps({"architecture": "amd64", "os": "linux", "config": CONFIG, "rootfs": rootfs}).encode()


def image_id(mark: bytes = b"") -> str:
    return f"sha256:{hashlib.sha256(config_text(layers(mark))).hexdigest()}"


def docker_archive(path: Path, mark: bytes = b"", tags: tuple[str, ...] = ("tiny:1",)) -> Path:
    """As `docker save` writes it; a suffix .gz packs it."""
    contents = layers(mark)
    text = config_text(contents)
    name = f"{hashlib.sha256(text).hexdigest()}.json"
    names = [f"{i}/layer.tar" for i in range(len(contents))]
    listing = json.dumps([{"Config": name, "RepoTags": list(tags), "Layers": names}]).encode()
    files = [*zip(names, contents, strict=True), (name, text), ("manifest.json", listing)]
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for each, content in files:
            info, _ = member(each)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def oci_layout(path: Path, mark: bytes = b"", tag: str = "1") -> Path:
    """An OCI layout (a folder), its layers not packed."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(content: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    contents = layers(mark)
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(config_text(contents), "config.v1+json"),
        "layers": [put(c, "layer.v1.tar") for c in contents],
    }
    entry = put(json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return path


def oci_archive(path: Path, folder: Path) -> Path:
    layout = oci_layout(folder / "for-archive")
    with tarfile.open(path, "w") as tar:
        for entry in sorted(layout.iterdir()):
            tar.add(entry, entry.name)
    return path


def root_folder(path: Path) -> Path:
    """An unpacked root file system; with device nodes where the caller may make some."""
    for name in ("bin", "etc", "dev"):
        (path / name).mkdir(parents=True)
    if runnable():
        shutil.copy(BUSYBOX, path / "bin/busybox")
        (path / "bin/sh").symlink_to("busybox")
    (path / "etc/motd").write_text("from a folder")
    if os.geteuid() == 0:
        os.mknod(path / "dev/zero", 0o20666, os.makedev(1, 5))
    return path


def files_in(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*"))


def container_settings(place: Path, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage of our own for podman, buildah and skopeo, and limits that a container without privileges may set.

    `place` must be short: podman waits 20 s for a socket whose path is longer than the 108 bytes that sockets have.
    """
    (place / "storage.conf").write_text(
        f'[storage]\ndriver = "{driver}"\ngraphroot = "{place}/graph"\nrunroot = "{place}/run"\n'
    )
    (place / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\nnetns = "host"\n'
        '[engine]\ncgroup_manager = "cgroupfs"\nruntime = "runc"\nevents_logger = "file"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(place / "storage.conf"))
    monkeypatch.setenv("CONTAINERS_CONF", str(place / "containers.conf"))


def fast_container_settings(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overlays where they work, here or in a container: vfs copies the whole image for each step."""
    container_settings(place, "overlay", monkeypatch)
    if subprocess.run(["buildah", "info"], capture_output=True, timeout=60).returncode != 0:
        container_settings(place, "vfs", monkeypatch)


def base_archive(path: Path, mark: bytes = b"") -> None:
    """With a history: buildah 1.28 adds no layer to an image that has none."""
    files = path.with_suffix(".layer")
    files.write_bytes(layers()[0])
    write_archive(
        files, path, ImageConfig(env={"PATH": "/bin", "MARK": mark.decode()}), "localhost/xgen-tiny:0", lambda _: None
    )
    files.unlink()


def xgen_build(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "xgen.cli.main", "image", "build", *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def finish(process: subprocess.Popen[str], timeout: float = 60) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err
