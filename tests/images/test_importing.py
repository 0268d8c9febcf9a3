"""Every source becomes every format that the tools here can make; once, whole, and clear when it cannot be."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.images import made
from xgen.cli.image import where_and_what
from xgen.images.errors import ImageError
from xgen.images.importing import Imported, import_image
from xgen.images.progress import Lines, Silent
from xgen.images.record import STORE, Format, read_record
from xgen.spec.errors import SpecError

OCI_TOOLS = ("skopeo", "umoci", "mksquashfs")
CLI = """
from xgen.cli.common import fail
from xgen.cli.image import app
try:
    app()
except Exception as error:
    fail(error)
"""


def load(source: str | Path, image_dir: Path, *formats: Format, name: str | None = "tiny") -> Imported:
    return import_image(str(source), image_dir, formats or ("folder",), Silent(), name=name)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", CLI, *map(str, arguments)]


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=120
    )


def only_tools(folder: Path, *tools: str) -> str:
    """A PATH with these tools only."""
    folder.mkdir()
    for tool in (*tools, "sync", "tar", "cp"):
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    return str(folder)


# --- files and folders


@made.needs(*OCI_TOOLS)
@pytest.mark.parametrize("kind", ["docker", "packed", "oci-archive", "layout"])
def test_archives_and_layouts_of_one_image_are_one_image(kind: str, tmp_path: Path, images: Path) -> None:
    source = {
        "docker": lambda: made.docker_archive(tmp_path / "x.tar"),
        "packed": lambda: made.docker_archive(tmp_path / "x.tar.gz"),
        "oci-archive": lambda: made.oci_archive(tmp_path / "x.tar", tmp_path),
        "layout": lambda: made.oci_layout(tmp_path / "x"),
    }[kind]()
    done = load(source, images, "folder", "sqsh", "tar")
    assert done.made == ("folder", "sqsh", "tar")
    assert done.record.digest == made.image_id()
    assert done.record.env == {"PATH": "/bin", "GREETING": "good day", "EMPTY": ""}
    assert done.record.labels["org.opencontainers.image.revision"] == made.REVISION
    root = images / "tiny"
    assert (root / "etc/motd").read_text() == "second"
    assert not (root / "etc/deleted").exists()
    assert (images / "tiny.tar").stat().st_size == done.record.formats["tar"]
    assert sorted(p.name for p in (images / STORE).iterdir()) == [
        made.image_id()[7:19],
        f"{made.image_id()[7:19]}.lock",
    ]


@made.needs(*OCI_TOOLS)
def test_an_unpacked_image_can_be_started_and_deleted_by_its_owner(tmp_path: Path, images: Path) -> None:
    load(made.docker_archive(tmp_path / "x.tar"), images)
    root = images / "tiny"
    for name in ("hosts", "resolv.conf", "passwd", "group"):
        assert stat.S_ISREG((root / "etc" / name).lstat().st_mode), name
    assert all((root / name).is_dir() for name in ("dev", "proc", "sys", "tmp"))
    assert (root / "locked").stat().st_mode & 0o700 == 0o700
    assert (root / "locked/secret").stat().st_mode & 0o400


@made.needs("umoci", "skopeo", "ch-run")
@made.needs_busybox()
def test_charliecloud_starts_the_folder(tmp_path: Path, images: Path) -> None:
    load(made.docker_archive(tmp_path / "x.tar"), images)
    argv = ["ch-run", str(images / "tiny"), "--", "/bin/sh", "-c", "read line < /etc/motd; echo $line"]
    done = subprocess.run(argv, env={**os.environ, "USER": "root"}, capture_output=True, text=True, timeout=60)
    if "can't unshare" in done.stderr or "can't initialize user" in done.stderr:
        pytest.skip("no user namespaces here")
    assert done.stdout == "second\n", done.stderr


@made.needs("umoci", "skopeo", "podman", "runc")
@pytest.mark.usefixtures("containers")
@made.needs_busybox()
@made.as_root
def test_podman_starts_the_folder(tmp_path: Path, images: Path) -> None:
    load(made.docker_archive(tmp_path / "x.tar"), images)
    argv = ["podman", "run", "--rm", "--rootfs", str((images / "tiny").resolve()), "/bin/sh", "-c", "echo up"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.stdout == "up\n", done.stderr


@made.needs("mksquashfs", "unsquashfs")
def test_a_folder_becomes_a_squashfs_without_device_nodes_and_back_with_the_same_files(
    tmp_path: Path, images: Path
) -> None:
    root = made.root_folder(tmp_path / "root")
    load(root, images, "sqsh", "folder")
    assert not (images / "tiny/dev/zero").exists()
    other = tmp_path / "other"
    load(images / "tiny.sqsh", other, "folder")
    assert made.files_in(other / "tiny/") == made.files_in(images / "tiny/")
    assert (other / "tiny/etc/motd").read_text() == "from a folder"


@made.needs("docker", "dockerd", "mksquashfs")
@pytest.mark.usefixtures("dockerd")
@made.as_root
def test_docker_loads_what_was_made_of_a_folder_and_gives_it_back(tmp_path: Path, images: Path) -> None:
    load(made.root_folder(tmp_path / "root"), images, "tar")
    said = subprocess.run(["docker", "load", "-i", str(images / "tiny.tar")], capture_output=True, text=True)
    tag = said.stdout.split()[-1]
    assert tag.startswith("localhost/xgen:"), said.stderr
    done = load(f"docker-daemon:{tag}", tmp_path / "other", "tar", name=None)
    assert done.name == tag.rpartition("/")[2].replace(":", "-")
    with pytest.raises(ImageError, match=r"nosuch:1.*[Nn]o such image"):
        load("docker-daemon:nosuch:1", images)


@made.needs("docker", "dockerd", "mksquashfs")
@pytest.mark.usefixtures("dockerd")
@made.as_root
def test_docker_alone_unpacks_an_archive_and_keeps_nothing_of_it(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = made.docker_archive(tmp_path / "x.tar", tags=())
    monkeypatch.setenv("PATH", only_tools(tmp_path / "bin", "docker", "mksquashfs"))
    load(archive, images, "folder", "sqsh")
    assert (images / "tiny/etc/motd").read_text() == "second"
    assert not (images / "tiny/.dockerenv").exists()
    left = subprocess.run(["docker", "images", "-qa"], capture_output=True, text=True)
    assert left.stdout == "", left.stderr


@made.needs("podman", "skopeo", "umoci", "buildah")
@pytest.mark.usefixtures("containers")
@made.as_root
@pytest.mark.parametrize("transport", ["podman", "containers-storage"])
def test_an_image_in_podmans_storage_is_imported(transport: str, tmp_path: Path, images: Path) -> None:
    archive = made.docker_archive(tmp_path / "x.tar", tags=("localhost/tiny:1",))
    subprocess.run(["podman", "load", "-q", "-i", archive], check=True, capture_output=True)
    done = load(f"{transport}:localhost/tiny:1", images, "folder", "tar", name=None)
    assert (done.name, done.record.digest) == ("tiny-1", made.image_id())
    assert (images / "tiny-1/etc/motd").read_text() == "second"


# --- once, whole, or not at all


@made.needs(*OCI_TOOLS)
def test_a_second_import_does_nothing_and_says_so(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = made.docker_archive(tmp_path / "x.tar")
    load(archive, images)
    before = (images / "tiny").stat().st_ctime_ns
    monkeypatch.setenv("PATH", "")
    assert load(archive, images).made == ()
    assert (images / "tiny").stat().st_ctime_ns == before
    second = run("import", archive, "--image-dir", images, "--format", "folder", "--name", "tiny")
    assert "is there already, nothing to do" in second.stdout


@made.needs(*OCI_TOOLS)
def test_another_format_and_another_name_are_added_to_the_same_image(tmp_path: Path, images: Path) -> None:
    archive = made.docker_archive(tmp_path / "x.tar")
    load(archive, images)
    done = load(archive, images, "sqsh", "folder", name="other")
    assert done.made == ("sqsh",)
    assert set(done.record.formats) == {"folder", "sqsh"}
    assert (images / "tiny").resolve() == (images / "other").resolve()
    own = load(images / "other.sqsh", images, "tar", name="other")
    assert own.record.digest == made.image_id(), "an image of the folder keeps its digest"


@made.needs(*OCI_TOOLS)
def test_a_name_moves_to_a_newer_image_and_old_runs_keep_theirs(tmp_path: Path, images: Path) -> None:
    load(made.docker_archive(tmp_path / "a.tar"), images, "folder", "sqsh")
    old = (images / "tiny").resolve()
    done = load(made.docker_archive(tmp_path / "b.tar", b", newer"), images)
    assert (images / "tiny/etc/motd").read_text() == "second, newer"
    assert (old / "etc/motd").read_text() == "second"
    assert [note.split(";")[0].split(" sha256")[0] for note in done.notes] == ["tiny was", "tiny.sqsh still leads to"]


@made.needs(*OCI_TOOLS)
def test_two_at_once_import_once(tmp_path: Path, images: Path) -> None:
    archive = made.docker_archive(tmp_path / "x.tar")
    argv = command("import", archive, "--image-dir", images, "--format", "sqsh", "--format", "folder")
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [p.communicate(timeout=120) for p in both]
    assert [p.returncode for p in both] == [0, 0, 0], said
    assert sum("imported as sqsh, folder" in out for out, _ in said) == 1
    assert sum("umoci" in err for _, err in said) == 1


def slow_tool(folder: Path, real: str) -> Path:
    """`real`, which writes half of its work and then hangs."""
    folder.mkdir()
    script = folder / real
    script.write_text(
        f'#!/bin/sh\nfor last; do :; done\nmkdir -p "$last" 2>/dev/null; echo half > "$last/half"\n'
        f"echo $$ > {folder}/pid\nexec sleep 300\n"
    )
    script.chmod(0o755)
    return folder


@made.needs(*OCI_TOOLS)
def test_a_killed_import_leaves_a_folder_that_the_next_one_clears(tmp_path: Path, images: Path) -> None:
    archive = made.docker_archive(tmp_path / "x.tar")
    slow = slow_tool(tmp_path / "slow", "umoci")
    argv = command("import", archive, "--image-dir", images, "--format", "folder", "--name", "tiny")
    process = subprocess.Popen(argv, env={**os.environ, "PATH": f"{slow}:{os.environ['PATH']}"})
    end = time.monotonic() + 30
    while not (slow / "pid").exists() and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    child = Path("/proc") / (slow / "pid").read_text().strip()
    while child.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not child.exists(), "a tool that lives on would write into what the next import makes"
    assert [p.name for p in images.iterdir()] == [STORE], "no name leads to half an image"
    again = run("import", archive, "--image-dir", images, "--format", "folder", "--name", "tiny")
    assert "left by an import that was killed" in again.stderr
    assert (images / "tiny/etc/motd").read_text() == "second"
    assert not list((images / STORE).glob("*.tmp"))


@made.needs(*OCI_TOOLS)
def test_a_tool_that_fails_says_why_and_nothing_stays(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = made.docker_archive(tmp_path / "x.tar")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "umoci").write_text("#!/bin/sh\necho 'first line' >&2\necho 'layer 3 is corrupt' >&2\nexit 4\n")
    (broken / "umoci").chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken}:{os.environ['PATH']}")
    with pytest.raises(ImageError, match=r"umoci raw failed \(4\): first line \| layer 3 is corrupt"):
        load(archive, images)
    assert [p.suffix for p in (images / STORE).iterdir()] == [".lock"]


@made.needs(*OCI_TOOLS, "mount")
@made.as_root
@pytest.mark.parametrize(("size", "fills"), [("64k", "a tool"), ("3m", "the copy")])
def test_a_full_disk_is_said_and_nothing_stays(size: str, fills: str, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", small], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no mount here")
    archive = made.docker_archive(tmp_path / "x.tar")
    try:
        with pytest.raises(ImageError, match=r"small: the disk is full; the import is undone and .* free again"):
            load(archive, small, *(("folder", "sqsh") if fills == "a tool" else ("folder", "tar")))
        assert [p.suffix for p in (small / STORE).iterdir()] == [".lock"]
        assert [p.name for p in small.iterdir()] == [STORE]
    finally:
        subprocess.run(["umount", small], check=True)


# --- what a person writes


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("/nowhere/x.tar", "'/nowhere/x.tar': is not there; write a file, a folder, or a reference"),
        ("trainer", "'trainer': is not there; write"),
        ("docker-daemon:", "'docker-daemon:': names no image; write docker-daemon:NAME:TAG"),
        ("nvcr.io#nvidia/x:1", "write nvcr.io/nvidia/x:1"),
        ("nvcr.io/Upper/x:1", "names no image; write"),
    ],
)
def test_a_wrong_source_says_what_to_write(source: str, said: str, images: Path) -> None:
    with pytest.raises(SpecError) as raised:
        load(source, images)
    assert said in str(raised.value)
    assert not images.exists()


def test_files_that_are_no_image_are_told_apart(tmp_path: Path, images: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder").mkdir()
    made.docker_archive(tmp_path / "two.tar")
    subprocess.run(["tar", "-C", str(tmp_path), "-cf", str(tmp_path / "files.tar"), "notes.txt"], check=True)
    for name, said in {
        "notes.txt": "is no image; write a docker or OCI archive",
        "folder": "has neither bin nor usr; write the root folder",
        "files.tar": "an archive of files, not of an image; unpack it into a folder",
    }.items():
        with pytest.raises(SpecError, match=said):
            load(tmp_path / name, images)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("trainer.sqsh", "'trainer.sqsh' ends in .sqsh; write trainer"),
        ("team/trainer:1", "write e.g. team-trainer-1"),
        (".hidden", "write e.g. hidden"),
    ],
)
def test_a_wrong_name_says_what_to_write(name: str, said: str, tmp_path: Path, images: Path) -> None:
    archive = made.docker_archive(tmp_path / "x.tar")
    with pytest.raises(SpecError) as raised:
        load(archive, images, name=name)
    assert said in str(raised.value)


def test_missing_tools_are_named_with_their_package(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = made.docker_archive(tmp_path / "x.tar")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ImageError, match=r"Debian: apt-get install skopeo squashfs-tools umoci"):
        load(archive, images, "sqsh")


def test_the_command_line_needs_a_format_where_no_profile_names_a_runtime(tmp_path: Path, images: Path) -> None:
    archive = made.docker_archive(tmp_path / "x.tar")
    for arguments, said in {
        ("--image-dir", str(images)): "write --format folder or --format sqsh or --format sif or --format tar",
        ("--image-dir", str(images), "--format", "zip"): "'zip' is not known; write one of folder, sqsh, sif, tar",
    }.items():
        done = run("import", archive, *arguments)
        assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr


@pytest.mark.parametrize(("runtime", "kind"), [("singularity", "sif"), ("pyxis", "sqsh"), ("podman", "folder")])
def test_the_format_is_what_the_runtime_of_the_cluster_likes_best(tmp_path: Path, runtime: str, kind: str) -> None:
    profile = tmp_path / "c.yaml"
    container = f"{{runtime: {runtime}, image_dir: {tmp_path}/images}}"
    profile.write_text(f"run_root: {tmp_path}\npartitions: {{a: {{}}}}\ncontainer: {container}\n")
    assert where_and_what(str(profile), None, None) == (tmp_path / "images", [kind])


@made.needs(*OCI_TOOLS)
def test_json_says_what_was_done(tmp_path: Path, images: Path) -> None:
    archive = made.docker_archive(tmp_path / "x.tar")
    done = run("import", archive, "--image-dir", images, "--format", "folder", "--name", "tiny", "--json")
    said = json.loads(done.stdout)
    assert (said["name"], said["imported"], said["image"]["digest"]) == ("tiny", ["folder"], made.image_id())
    listed = json.loads(run("list", "--image-dir", images, "--json").stdout)
    assert [(row["name"], row["revision"], list(row["formats"])) for row in listed] == [
        ("tiny", made.REVISION, ["folder"])
    ]


def test_progress_in_a_pipe_is_a_line_each_half_minute() -> None:
    now = 0.0
    stream = io.StringIO()
    with Lines(stream, lambda: now).step("fetch it") as tick:
        for at, count in ((10.0, 2**20), (31.0, 2**21), (40.0, 2**20), (62.0, 3 * 2**20)):
            now = at
            tick(count)
    assert stream.getvalue().splitlines() == ["fetch it …", "  … 2MB, 31s", "  … 3MB, 1m2s", "  done: 3MB, 1m2s"]


def test_the_record_lies_beside_the_formats(tmp_path: Path, images: Path) -> None:
    done = load(made.root_folder(tmp_path / "root"), images)
    record = read_record(images / "tiny")
    assert record == done.record
    assert record.source == str(tmp_path / "root")
    assert record.digest.startswith("sha256:")
