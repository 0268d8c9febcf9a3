"""What a machine shows of its site: file systems, device files, types of GPUs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import Event

import pytest

from xgen.cluster.site.known import known_gpu
from xgen.cluster.site.machine import (
    FOLDER_VARIABLES,
    LocalGpus,
    ask_disk,
    environment_of,
    file_system_of,
    folders,
    gpu_devices,
    is_shared,
    look_around,
    named_folders,
    parse_gpus,
    parse_mounts,
)

MOUNTS = """\
/dev/nvme0n1p2 / ext4 rw 0 0
proc /proc proc rw 0 0
nfs1:/home /home nfs4 rw,vers=4.2 0 0
10.0.0.1@o2ib:/lfs /scratch lustre rw,flock 0 0
weka/fs /data/my\\040models wekafs rw 0 0
"""


def test_a_path_is_on_the_file_system_of_the_nearest_mount_above_it() -> None:
    mounts = parse_mounts(MOUNTS)
    assert file_system_of(mounts, "/home/ana/runs") == "nfs4"
    assert file_system_of(mounts, "/scratch") == "lustre"
    assert file_system_of(mounts, "/scratch2/ana") == "ext4"
    assert file_system_of(mounts, "/data/my models/a") == "wekafs"
    assert file_system_of({}, "/home") == ""


@pytest.mark.parametrize(
    ("file_system", "shared"),
    [
        ("nfs", True), ("nfs4", True), ("lustre", True), ("gpfs", True), ("beegfs_nodev", True), ("fuse.ceph", True),
        ("fuse.glusterfs", True), ("ext4", False), ("xfs", False), ("tmpfs", False), ("overlay", False), ("", False),
    ],
)  # fmt: skip
def test_file_systems_that_one_mounts_to_share(file_system: str, shared: bool) -> None:
    assert is_shared(file_system) is shared


@pytest.mark.parametrize(
    ("gres_conf", "devices"),
    [
        ("NodeName=n[1-4] Name=gpu File=/srv/dev/fakegpu[0-7]\n", "/srv/dev/fakegpu{}"),
        ("# Name=gpu File=/dev/x0\nName=gpu Type=mi300 File=/dev/x0\n", "/dev/x{}"),
        ("NodeName=g[1-4] Name=gpu Type=h100 File=/dev/nvidia[0-7]\n", None),
        ("AutoDetect=nvml\n", None),
        ("Name=nvme File=/dev/nvme0\n", None),
        ("NodeName=m1 Name=gpu File=/dev/x[0-3]\nNodeName=m2 Name=gpu File=/dev/x[0-7]\n", "/dev/x{}"),
        ("NodeName=m1 Name=gpu File=/dev/x[0-3]\nNodeName=g1 Name=gpu File=/dev/nvidia[0-7]\n", None),
        ("NodeName=m1 name=gpu file=/dev/x[0-3]\nNodeName=g[1-9] AutoDetect=nvml\n", None),
        ("", None),
    ],
)
def test_device_files_of_gpus_that_are_not_nvidias(gres_conf: str, devices: str | None) -> None:
    assert gpu_devices(gres_conf) == devices


@pytest.mark.parametrize(
    ("name", "flops", "memory"),
    [
        ("h100", "989T", "80GB"), ("nvidia_h100_80gb_hbm3", "989T", "80GB"), ("NVIDIA H100 PCIe", "756T", "80GB"),
        ("h200", "989T", "141GB"), ("gh200", "989T", None), ("a100", "312T", None), ("a100_40gb", "312T", "40GB"),
        ("nvidia_a100-sxm4-80gb", "312T", "80GB"), ("l40s", "362T", "48GB"), ("L40", "181T", "48GB"),
        ("NVIDIA GeForce RTX 4090", "165T", "24GB"), ("nvidia_gh200_480gb", "989T", None),
        ("nvidia_gb200", "2250T", "180GB"), ("nvidia_a100_80gb_pcie_1g.10gb", "45T", "10GB"),
        ("a100_3g.20gb", "134T", "20GB"), ("h100-96", "989T", "96GB"), ("a100-40", "312T", "40GB"),
    ],
)  # fmt: skip
def test_gpus_of_a_known_type(name: str, flops: str, memory: str | None) -> None:
    found = known_gpu(name)
    assert found is not None
    assert (found.flops, found.memory) == (flops, memory)


@pytest.mark.parametrize("name", ["v100", "a1000", "ga100x", "gpu", ""])
def test_of_an_unknown_type_nothing_is_claimed(name: str) -> None:
    assert known_gpu(name) is None


def test_gpus_of_this_machine() -> None:
    said = "NVIDIA H100 80GB HBM3, 81559\nNVIDIA H100 80GB HBM3, 81559\n"
    assert parse_gpus(said) == LocalGpus(2, "NVIDIA H100 80GB HBM3", 81559)
    assert parse_gpus("No devices were found\n") is None
    assert parse_gpus("") is None


def image(folder: Path, torch: bool) -> None:
    (folder / "etc").mkdir(parents=True)
    base = folder / sys.base_prefix.lstrip("/")
    (base / "bin").mkdir(parents=True)
    if torch:
        (folder / "opt/venv/lib/python3.11/site-packages/torch").mkdir(parents=True)


def test_an_environment_is_mounted_into_images_that_have_python_and_no_torch(tmp_path: Path) -> None:
    images = tmp_path / ".cache/images"
    image(images / "bare", torch=False)
    seen = look_around(tmp_path)
    assert seen.image_dir is not None
    assert (seen.image_dir.path, seen.environment) == (images, Path(sys.prefix))
    image(images / "trainer", torch=True)
    assert look_around(tmp_path).environment is None
    (tmp_path / "other").mkdir()
    assert look_around(tmp_path, image_dir=tmp_path / "other").image_dir is None


def test_device_files_are_read_beside_slurms_own_configuration(tmp_path: Path) -> None:
    (tmp_path / "gres.conf").write_text("Name=gpu File=/srv/x[0-3]\n")
    assert look_around(tmp_path, str(tmp_path / "slurm.conf")).gpu_devices == "/srv/x{}"
    assert look_around(tmp_path, str(tmp_path / "none/slurm.conf")).gpu_devices is None


def test_the_environment_of_an_interpreter(tmp_path: Path) -> None:
    assert environment_of(Path(sys.prefix) / "bin/python") == Path(sys.prefix)
    assert environment_of(tmp_path / "bin/python") is None


def place(folder: Path, *, mode: int = 0o755) -> Path:
    folder.mkdir(parents=True)
    folder.chmod(mode)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FOLDER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(place(tmp_path / "home/ana")))
    return tmp_path / "home/ana"


def seen(tmp_path: Path, **kinds: str) -> list[tuple[str, str]]:
    """Folders and who said so, of a mount table with these places below a folder."""
    mounts = {"/": "xfs"} | {str(tmp_path / name): kind for name, kind in kinds.items()}
    root = str(tmp_path)
    return [
        (str(one.path).replace(root, ""), one.said_by.replace(root, ""))
        for one in folders(mounts, named_folders("ana"), "ana")
    ]


@pytest.mark.usefixtures("home")
def test_what_is_shared_comes_first_and_of_that_what_the_site_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("local", "lustre/ana", "gpfs/users/ana"):
        place(tmp_path / name)
    monkeypatch.setenv("SCRATCH", str(tmp_path / "local"))
    monkeypatch.setenv("WORK", str(tmp_path / "lustre/ana"))
    monkeypatch.setenv("PROJECT", str(tmp_path / "not-there"))
    assert seen(tmp_path, gpfs="gpfs", lustre="lustre", home="nfs4") == [
        ("/lustre/ana", "$WORK"), ("/gpfs/users/ana", "/gpfs"), ("/lustre/ana", "/lustre"), ("/home/ana", "~"),
        ("/local", "$SCRATCH"),
    ]  # fmt: skip


@pytest.mark.usefixtures("home")
def test_a_variable_that_is_a_link_is_on_the_file_system_of_its_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").symlink_to(place(tmp_path / "lustre/ana"))
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    [first] = folders({"/": "xfs", str(tmp_path / "lustre"): "lustre"}, named_folders("ana"), "bob")[:1]
    assert (first.path, first.file_system) == (tmp_path / "scratch", "lustre")


@pytest.mark.usefixtures("home")
def test_in_a_folder_of_many_each_has_a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = place(tmp_path / "scratch", mode=0o1777)
    assert seen(tmp_path, scratch="nfs") == [("/scratch", "/scratch")]  # which is this user's own here
    monkeypatch.setattr(os, "getuid", lambda: shared.stat().st_uid + 1)
    assert seen(tmp_path, scratch="nfs") == [("/scratch/ana", "/scratch")]


def test_homes_of_others_and_what_cannot_be_looked_at_are_passed_over(tmp_path: Path, home: Path) -> None:
    place(home.parent / "bob/ana")
    (tmp_path / "loop").symlink_to("loop")  # every look at it is an OSError
    assert seen(tmp_path, **{"home/bob": "nfs4", "home/ana": "nfs4", "loop": "nfs"}) == [("/home/ana", "~")]


def test_a_disk_that_refuses_or_does_not_answer_holds_nothing_up() -> None:
    def refused() -> bool:
        raise PermissionError(13, "Permission denied")

    assert ask_disk(lambda: True, otherwise=False) is True
    assert ask_disk(refused, otherwise=False) is False
    assert ask_disk(Event().wait, otherwise=False, seconds=0.05) is False


def test_images_that_may_not_be_looked_at_are_no_images(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/images").symlink_to("images")
    around = look_around(tmp_path)
    assert (around.image_dir, around.environment) == (None, None)
