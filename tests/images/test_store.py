"""The image folder: names, locks, digests, what is listed; and the pure parts that an import is made of."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.images import made
from xgen.images import commands, enroot
from xgen.images.config import ImageConfig
from xgen.images.errors import ImageError
from xgen.images.listing import Row, list_images
from xgen.images.record import STORE, ImageRecord
from xgen.images.rootfs import tidy
from xgen.images.store import ImageStore
from xgen.images.treehash import tree_bytes, tree_digest
from xgen.images.ways import WAYS, find_ways
from xgen.spec.errors import SpecError
from xgen.spec.image import parse_reference

DIGEST = f"sha256:{'ab' * 32}"
OTHER = f"sha256:{'cd' * 32}"


def record(digest: str = DIGEST, name: str = "tiny", created: float = 100.0, **formats: int) -> ImageRecord:
    return ImageRecord(name=name, digest=digest, source="test", created=created, tool="none", formats=formats)


def put(store: ImageStore, record: ImageRecord, name: str = "tiny") -> list[str]:
    """As an import does, with files of one byte."""
    with store.adding(record.digest, 1, lambda _: None) as tmp:
        out = tmp / "out"
        out.mkdir()
        for kind in record.formats:
            (out / "folder").mkdir() if kind == "folder" else (out / f"image.{kind}").write_text(".")
        return store.link(name, store.publish(record, out))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


# --- names and records


def test_links_are_relative_so_that_nodes_may_mount_the_folder_elsewhere(store: ImageStore, tmp_path: Path) -> None:
    put(store, record(sqsh=1, folder=0))
    assert (store.image_dir / "tiny.sqsh").readlink() == Path(".images/abababababab/image.sqsh")
    moved = store.image_dir.rename(tmp_path / "elsewhere")
    assert (moved / "tiny").is_dir()
    assert ImageStore(moved).leads_to("tiny", record(sqsh=1, folder=0))


def test_formats_that_come_later_join_the_record(store: ImageStore) -> None:
    put(store, record(folder=7))
    put(store, record(sqsh=9, folder=1))
    assert store.record(DIGEST) == record(folder=7, sqsh=9)
    (store.image_dir / "tiny.sqsh").resolve().unlink()
    assert store.record(DIGEST) == record(folder=7), "what was deleted by hand is not there"


def test_a_file_of_somebody_else_keeps_its_name(store: ImageStore) -> None:
    store.image_dir.mkdir()
    (store.image_dir / "tiny.sqsh").write_text("theirs")
    with pytest.raises(SpecError, match=r"tiny\.sqsh is there and is no link of xgen; write another --name"):
        store.check_free("tiny")
    assert (store.image_dir / "tiny.sqsh").read_text() == "theirs"


def test_a_group_that_shares_the_folder_may_add_to_each_others_images(store: ImageStore) -> None:
    store.image_dir.mkdir()
    store.image_dir.chmod(0o2775)
    old = os.umask(0o077)
    try:
        put(store, record(folder=7, sif=1))
        put(store, record(sqsh=9))
    finally:
        os.umask(old)
    place = store.place(DIGEST)
    files = [place / name for name in ("image.json", "image.sqsh", "image.sif")]
    assert {oct(p.stat().st_mode & 0o7777) for p in files} == {"0o664"}
    assert [oct(p.stat().st_mode & 0o7777) for p in (place.parent, place, place.with_suffix(".lock"))] == [
        "0o2775", "0o2775", "0o664"
    ]  # fmt: skip
    assert oct((place / "folder").stat().st_mode & 0o7777) == "0o2770", "where jobs of the others make mount points"


def test_a_folder_image_of_one_person_is_theirs(store: ImageStore) -> None:
    store.image_dir.mkdir(mode=0o755)
    put(store, record(folder=7))
    mode = (store.place(DIGEST) / "folder").stat().st_mode
    assert mode & 0o2020 == 0


def test_a_damaged_record_is_named(store: ImageStore) -> None:
    put(store, record(folder=7))
    (store.place(DIGEST) / "image.json").write_text("{")
    with pytest.raises(ImageError, match=r"abababababab has no readable image\.json; remove the folder"):
        store.record(DIGEST)


def test_two_images_with_the_same_first_digits_are_not_mixed(store: ImageStore) -> None:
    put(store, record(folder=7))
    with pytest.raises(ImageError, match="is of sha256:abab"):
        store.record(f"sha256:{'ab' * 6}{'0' * 52}")


def test_an_image_folder_that_cannot_be_made_is_a_mistake_of_the_call(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SpecError, match="write --image-dir DIR"),
        ImageStore(tmp_path / "file/x").adding(DIGEST, 1, print),
    ):
        pass


# --- the lock

HOLD = """
import sys, time
from pathlib import Path
from xgen.images.store import ImageStore
with ImageStore(Path(sys.argv[1])).adding(sys.argv[2], 5, print) as tmp:
    (tmp / "part").write_text("x")
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
"""


def hold(store: ImageStore, seconds: float, digest: str = DIGEST) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", HOLD, str(store.image_dir), digest, str(seconds)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_import_waits_and_says_for_whom(store: ImageStore) -> None:
    first = hold(store, 1.0)
    said: list[str] = []
    began = time.monotonic()
    with store.adding(DIGEST, 30, said.append) as tmp:
        assert time.monotonic() - began > 0.3
        assert not (tmp / "part").exists()
    assert len(said) == 1
    assert said[0].startswith(f"waiting: process {first.pid} on {os.uname().nodename}, since ")
    first.wait()


def test_waiting_ends_and_names_the_holder_and_leaves_its_work_alone(store: ImageStore) -> None:
    first = hold(store, 30)
    try:
        said_who = pytest.raises(ImageError, match=rf"process {first.pid} on .* is still at this image after 0 s")
        with said_who, store.adding(DIGEST, 0.3, lambda _: None):
            pass
        with store.adding(OTHER, 1, lambda _: None):
            assert (store.image_dir / STORE / "abababababab.tmp/part").exists(), "another image's import goes on"
    finally:
        first.kill()
        first.wait()
    said: list[str] = []
    with store.adding(OTHER, 1, said.append):
        assert not (store.image_dir / STORE / "abababababab.tmp").exists()
    assert said == ["removed .images/abababababab.tmp, left by an import that was killed"]


def test_what_fails_leaves_nothing(store: ImageStore) -> None:
    with pytest.raises(ZeroDivisionError), store.adding(DIGEST, 1, lambda _: None) as tmp:
        (tmp / "deep").mkdir()
        raise ZeroDivisionError
    assert [p.name for p in (store.image_dir / STORE).iterdir()] == ["abababababab.lock"]


# --- the list


def test_the_list_shows_names_and_what_xgen_did_not_put_there(store: ImageStore) -> None:
    assert list_images(store.image_dir) == []
    put(store, record(folder=7, sqsh=9))
    put(store, record(OTHER, created=200.0, sif=5), "newer")
    put(store, record(OTHER, created=200.0, sif=5), "tiny")
    (store.image_dir / "theirs.sqsh").write_text("12345")
    (store.image_dir / "old").mkdir()
    (store.image_dir / "notes.txt").write_text("no image")
    (store.image_dir / "gone.sif").symlink_to("/nowhere")
    rows = {(row.name, row.digest): row for row in list_images(store.image_dir)}
    assert list(rows) == [
        ("newer", OTHER), ("tiny", OTHER), ("tiny", DIGEST), ("gone", ""), ("old", ""), ("theirs", "")
    ]  # fmt: skip
    assert rows["tiny", DIGEST].formats == {"folder": 7, "sqsh": 9}
    assert rows["theirs", ""] == Row("theirs", "", {"sqsh": 5})
    assert rows["old", ""].formats == {"folder": None}
    assert rows["gone", ""].broken == ("gone.sif",)


def test_an_image_without_a_name_is_listed_so_that_somebody_can_remove_it(store: ImageStore) -> None:
    put(store, record(folder=7))
    put(store, record(OTHER, created=200.0, folder=5))
    assert [(row.name, row.digest) for row in list_images(store.image_dir)] == [("tiny", OTHER), ("", DIGEST)]


# --- the digest of a folder


@settings(deadline=None)  # the time is the disk's
@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), st.binary(max_size=20), min_size=1, max_size=4))
def test_a_folders_digest_is_of_names_modes_and_contents(files: dict[str, bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        for root, names in ((Path(one), list(files)), (Path(two), list(reversed(files)))):
            for name in names:
                (root / name).write_bytes(files[name])
                os.utime(root / name, (1, len(names)))
        digest = tree_digest(Path(one), lambda _: None)
        assert tree_digest(Path(two), lambda _: None) == digest
        first = Path(two) / next(iter(files))
        first.chmod(0o711)
        changed = tree_digest(Path(two), lambda _: None)
        first.chmod(0o644)
        first.write_bytes(files[first.name] + b".")
        assert len({digest, changed, tree_digest(Path(two), lambda _: None)}) == 3


def test_a_folders_digest_knows_links_and_empty_folders(tmp_path: Path) -> None:
    def digest() -> str:
        return tree_digest(tmp_path, lambda _: None)

    seen = [digest()]
    (tmp_path / "empty").mkdir()
    seen.append(digest())
    (tmp_path / "link").symlink_to("a")
    seen.append(digest())
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("b")
    seen.append(digest())
    (tmp_path / "line\nbreak").write_text("x")
    seen.append(digest())
    assert len(set(seen)) == 5
    os.link(tmp_path / "line\nbreak", tmp_path / "same")
    assert tree_bytes(tmp_path) == 1


# --- pure: commands, ways, what enroot reads


def test_commands_are_written_as_the_tools_document_them() -> None:
    nvidia = parse_reference("nvcr.io/nvidia/pytorch:25.06-py3")
    pinned = nvidia.with_digest(DIGEST)
    local = parse_reference("localhost:5000/x/y:1")
    tmp, out = Path("/i/t"), Path("/i/t/sif")
    lines = [
        commands.skopeo_copy(f"docker://{pinned}", "oci:/i/t/layout:xgen", tmp=tmp),
        commands.skopeo_copy("docker-archive:/x.tar", "oci:/l:xgen", plain_http=True, policy=False, tmp=tmp),
        commands.umoci_unpack(Path("/l"), "xgen", Path("/r"), uid=0),
        commands.umoci_unpack(Path("/l"), "xgen", Path("/r"), uid=1000),
        commands.mksquashfs(Path("/r"), Path("/o"), zstd=True, processors=4),
        commands.mksquashfs(Path("/r"), Path("/o"), zstd=False, processors=1),
        *commands.pull("podman", local),
        *commands.pull("docker", pinned),
        commands.save("docker", "a:1", Path("/o")),
        commands.save("podman", "a:1", Path("/o")),
        commands.save("buildah", "a:1", Path("/o")),
        commands.apptainer_build("apptainer", out, "docker-archive:/x.tar"),
        commands.apptainer_build("singularity", out, f"docker://{local}", plain_http=True),
        commands.apptainer_build("apptainer", Path("/r"), "/x.sif", sandbox=True),
        commands.enroot_import(nvidia, Path("/o")),
        commands.enroot_import(parse_reference("ubuntu").with_digest(DIGEST), Path("/o")),
    ]
    assert "\n".join(" ".join(line) for line in lines) == "\n".join(
        (
            f"skopeo --tmpdir=/i/t copy --quiet --retry-times=3 docker://nvcr.io/nvidia/pytorch@{DIGEST} "
            "oci:/i/t/layout:xgen",
            "skopeo --insecure-policy --tmpdir=/i/t copy --quiet --src-tls-verify=false docker-archive:/x.tar "
            "oci:/l:xgen",
            "umoci raw unpack --image=/l:xgen /r",
            "umoci raw unpack --rootless --image=/l:xgen /r",
            "mksquashfs /r /o -all-root -noappend -no-progress -no-xattrs -processors 4 "
            "-comp zstd -Xcompression-level 9 -b 1M",
            "mksquashfs /r /o -all-root -noappend -no-progress -no-xattrs -processors 1",
            "podman pull --tls-verify=false localhost:5000/x/y:1",
            f"docker pull nvcr.io/nvidia/pytorch@{DIGEST}",
            "docker save --output=/o a:1",
            "podman save --format=docker-archive --output=/o a:1",
            "buildah push a:1 docker-archive:/o",
            "apptainer build /i/t/sif docker-archive:/x.tar",
            "singularity build --no-https /i/t/sif docker://localhost:5000/x/y:1",
            "apptainer build --sandbox --fix-perms /r /x.sif",
            "enroot import --output=/o docker://nvcr.io#nvidia/pytorch:25.06-py3",
            f"enroot import --output=/o docker://library/ubuntu:{DIGEST}",
        )
    )


@pytest.mark.parametrize(
    ("have", "want", "tools", "path"),
    [
        ("registry", "sqsh", "skopeo umoci mksquashfs", "skopeo umoci mksquashfs"),
        ("registry", "sqsh", "skopeo umoci mksquashfs enroot", "enroot"),
        ("registry", "folder tar", "skopeo umoci podman", "skopeo umoci skopeo"),
        ("registry", "folder", "podman docker", "podman podman"),
        ("registry", "sif", "skopeo apptainer", "apptainer"),
        ("docker-daemon", "sif", "docker apptainer skopeo", "docker apptainer"),
        ("docker-daemon", "sqsh", "docker skopeo umoci mksquashfs", "docker skopeo umoci mksquashfs"),
        ("tree", "tar sqsh folder", "cp tar mksquashfs", "cp tar mksquashfs"),
        ("sqsh", "folder sif", "unsquashfs singularity", "unsquashfs singularity"),
        ("sif", "sqsh", "apptainer mksquashfs", "apptainer mksquashfs"),
    ],
)
def test_the_shortest_way_with_what_is_installed(have: str, want: str, tools: str, path: str) -> None:
    ways = find_ways([have], want.split(), tools.split().__contains__)  # type: ignore[arg-type]
    assert " ".join(way.tool for way in ways) == path


def test_every_source_becomes_every_format_where_all_is_installed() -> None:
    for source in {way.of for way in WAYS}:
        for target in ("folder", "sqsh", "sif", "tar"):
            if source != target:
                assert find_ways([source], [target], lambda _: True)


def test_enroot_finds_in_the_image_what_its_own_import_writes(tmp_path: Path) -> None:
    config = ImageConfig(
        env={"PATH": "/bin", "A": "b c=d"},
        labels={"org.x": "two\nlines"},
        entrypoint=("/bin/sh", "-c"),
        cmd=("echo it's here",),
        working_dir="/work/my place",
        volumes=("/data",),
    )
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/environment").symlink_to("/etc/hostname")
    enroot.configure(tmp_path, config)
    assert (tmp_path / "etc/environment").read_text() == "PATH=/bin\nA=b c=d\n"
    assert (tmp_path / "etc/fstab").read_text() == (
        "${ENROOT_ROOTFS}/data /data none x-create=dir,bind,rw,nosuid,nodev\n"
    )
    assert (tmp_path / "work/my place").is_dir()
    assert (tmp_path / "etc/rc").read_text() == (
        """\
# org.x two lines

mkdir -p '/work/my place' 2> /dev/null
cd '/work/my place' && unset OLDPWD || exit 1

if [ -s /etc/rc.local ]; then
    . /etc/rc.local
fi

if [ $# -gt 0 ]; then
    exec /bin/sh -c "$@"
else
    exec /bin/sh -c 'echo it'"'"'s here'
fi
"""
    )
    read = enroot.read_configured((tmp_path / "etc/environment").read_text(), (tmp_path / "etc/rc").read_text())
    assert (read.env, read.labels) == (config.env, {"org.x": "two lines"})


def test_the_rc_of_an_image_runs_its_command(tmp_path: Path) -> None:
    config = ImageConfig(entrypoint=("/bin/sh", "-c"), cmd=('echo "it\'s $0"; pwd',), working_dir=str(tmp_path))
    (tmp_path / "rc").write_text(enroot.rc(config).replace("/etc/rc.local", str(tmp_path / "none")))
    done = subprocess.run(["/bin/sh", tmp_path / "rc"], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["it's /bin/sh", str(tmp_path)]
    done = subprocess.run(["/bin/sh", tmp_path / "rc", "echo mine"], capture_output=True, text=True)
    assert done.stdout == "mine\n"


def test_nothing_is_written_through_a_link_of_the_image(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = made.root_folder(tmp_path / "root")
    (root / "etc/hosts").symlink_to(outside / "hosts")
    (root / "work").symlink_to(outside)
    enroot.configure(root, ImageConfig(working_dir="/work/../work/deep"))
    tidy(root)
    assert list(outside.iterdir()) == []
    assert not (root / "etc/hosts").is_symlink()
