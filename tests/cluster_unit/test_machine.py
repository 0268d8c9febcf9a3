"""What a machine shows of its site: file systems, device files, types of GPUs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from xgen.cluster.site.known import known_gpu
from xgen.cluster.site.machine import (
    LocalGpus,
    environment_of,
    file_system_of,
    gpu_devices,
    is_shared,
    look_around,
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
        ("NVIDIA GeForce RTX 4090", "165T", "24GB"),
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


def test_a_folder_that_the_site_names_comes_first_where_it_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    monkeypatch.setenv("WORK", str(tmp_path / "not-there"))
    seen = [folder.path for folder in look_around(tmp_path).folders if folder.said_by.startswith("$")]
    assert seen == [tmp_path]
