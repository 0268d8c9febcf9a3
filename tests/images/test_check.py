"""An image is started and says what is in it; what does not fit is an error with the fix."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.images import made
from xgen.images import check, probe
from xgen.images.check import Environment, Facts, choose_runtime, judge, look_inside, mounted_environment, problems
from xgen.images.errors import ImageError
from xgen.images.resolve import Image
from xgen.images.store import remove_tree
from xgen.spec.container import Mount
from xgen.spec.errors import SpecError

TRAINER: dict[str, Any] = {
    "python": "3.12.3",
    "executable": "/usr/bin/python3",
    "base_prefix": "/usr",
    "glibc": "2.39",
    "os": "Ubuntu 24.04.3 LTS",
    "uid": 1234,
    "gid": 99,
    "compiler": "/usr/bin/cc",
    "driver": "580.65.06",
    "packages": {"torch": "2.15.0", "torchtitan": "0.3.0", "flash-attn": "2.8.3.post2", "numpy": "2.4.6"},
    "torch": {"version": "2.15.0+cu132", "cuda": "13.2", "nccl": "2.30.7", "gpus": 8},
    "errors": {},
}


def facts(**changed: Any) -> Facts:
    return Facts.model_validate({**TRAINER, **changed})


def packages(**changed: str | None) -> dict[str, str | None]:
    return {**TRAINER["packages"], **changed}


def found(inside: Facts, environment: Environment | None = None, cuda: str | None = "13.0") -> list[str]:
    return list(problems(judge(inside, environment, cuda)))


def run(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xgen.cli.main", "image", "check", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


# Judging


def test_a_trainer_on_a_new_enough_driver_fits() -> None:
    rows = {row.name: row.value for row in judge(facts(), None, "13.0")}
    assert found(facts()) == []
    assert rows["torch"] == "2.15.0+cu132"
    assert rows["CUDA"] == "13.2"
    assert rows["NCCL"] == "2.30.7"
    assert rows["driver"] == "580.65.06, up to CUDA 13.0"
    assert rows["GPUs"] == "8"
    assert rows["user"] == "1234:99"
    assert rows["vllm"] == "absent"


def test_an_image_with_a_python_only_fits_and_says_what_is_absent() -> None:
    bare = facts(packages={}, torch={}, driver=None, compiler=None)
    assert found(bare, None, None) == []
    absent = {row.name for row in judge(bare, None, None) if row.value == "absent"}
    assert absent >= {"torch", "torchtitan", "CUDA", "NCCL", "flash-attn", "driver", "GPUs", "compiler"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"packages": packages(torch="2.14.1"), "torch": {**TRAINER["torch"], "version": "2.14.1+cu130"}},
            "torch 2.14.1+cu130: xgen trains with 2.15; build with docker/trainer's requirements.lock",
        ),
        ({"packages": packages(torchtitan="0.2.0")}, "torchtitan 0.2.0: xgen trains with 0.3.0"),
        ({"packages": packages(torchtitan=None)}, "torchtitan absent: xgen trains with 0.3.0"),
        ({"python": "3.10.12"}, "python 3.10.12 (/usr/bin/python3): xgen needs 3.11 or newer"),
        ({"glibc": "2.17"}, "glibc 2.17: torch needs 2.28 or newer; build on Debian 12"),
        (
            {"errors": {"torch": "ImportError: libcublas.so.13: cannot open shared object file"}, "torch": {}},
            "torch 2.15.0: torch is installed and does not load (ImportError: libcublas.so.13",
        ),
        (
            {"errors": {"flash_attn": "ImportError: undefined symbol"}},
            "flash-attn 2.8.3.post2: flash-attn is installed and does not load (ImportError: undefined symbol)",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_with_its_fix(changed: dict[str, Any], message: str) -> None:
    (said,) = found(facts(**changed))
    assert said.startswith(message)
    assert ";" in said


def test_a_driver_of_an_older_major_version_is_an_error_and_of_an_older_minor_is_none() -> None:
    assert found(facts(), None, "12.9") == [
        "CUDA 13.2: this machine's driver runs CUDA up to 12.9; install a newer driver, or build for CUDA 12"
    ]
    assert found(facts(), None, "13.0") == found(facts(), None, None) == []


def test_vllm_brings_a_torch_of_its_own() -> None:
    rollout = {"packages": {"torch": "2.13.0", "vllm": "0.32.0"}, "torch": {"version": "2.13.0", "cuda": "13.0"}}
    assert found(facts(**rollout)) == []


def test_an_environment_of_another_python_is_an_error() -> None:
    (said,) = found(facts(), Environment(Path("/work/.venv"), "3.11.7"))
    assert said == (
        "python 3.12.3 (/usr/bin/python3): the environment /work/.venv is of Python 3.11, and its packages are not "
        "found; build the image with Python 3.11, or the environment with 3.12"
    )
    assert found(facts(), Environment(Path("/work/.venv"), "3.12.0")) == []


def test_the_environment_is_found_through_its_mount(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv/pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    there = Environment(tmp_path / "venv", "3.11.7")
    assert mounted_environment(f"{tmp_path}/venv/bin/python", [Mount(source=str(tmp_path))]) == there
    assert mounted_environment("/env/venv/bin/python", [Mount(source=str(tmp_path), target="/env")]) == there
    assert mounted_environment(f"{tmp_path}/venv/bin/python", []) is None
    assert mounted_environment("/usr/bin/python3", [Mount(source=str(tmp_path))]) is None
    assert mounted_environment("python3", [Mount(source=str(tmp_path))]) is None
    assert mounted_environment(None, []) is None


def test_the_probe_needs_no_package_and_says_what_this_python_is() -> None:
    program = Path(probe.__file__).read_text(encoding="utf-8")
    command = [sys.executable, "-I", "-S", "-"]  # without site-packages
    done = subprocess.run(command, input=program, capture_output=True, text=True, timeout=60, check=True)
    said = Facts.model_validate_json(done.stdout.removeprefix(probe.MARK))
    assert said.python.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert (said.uid, said.gid) == (os.getuid(), os.getgid())
    assert set(said.packages.values()) == {None}


# Starting


def test_the_command_of_every_runtime() -> None:
    mounts = [Mount(source="/env", read_only=True)]
    folder, archive = Image("x", "folder", "/i/x"), Image("x", "tar", "/i/x.tar", "sha256:ab")
    start = check.start_command
    run_it = "/bin/sh -c {} sh python3"
    ends = {
        "charliecloud": f"ch-run --bind=/env:/env --cd=/ /i/x -- {run_it}",
        "podman": f"--volume=/env:/env:ro --userns=keep-id --device=nvidia.com/gpu=all --rootfs /i/x:O {run_it}",
        "docker": f"--volume=/env:/env:ro --user=7:{os.getgid()} --gpus=all sha256:ab {run_it}",
    }
    for runtime in check.RUNTIMES:
        image = archive if runtime == "docker" else folder
        argv = start(runtime, image, mounts, ["python3"], gpus=True, uid=7)
        script = next(word for word in argv if word.startswith("for p"))
        assert " ".join(argv).replace(script, "{}").endswith(ends[runtime])


def test_the_runtime_is_the_wanted_one_or_one_that_starts_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ch-run", "podman"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert choose_runtime(None, "podman") == "podman"
    assert choose_runtime(None, "pyxis") == choose_runtime(None, None) == "charliecloud"
    assert choose_runtime("podman", "charliecloud") == "podman"
    with pytest.raises(ImageError, match="docker is not installed on this machine; write --runtime charliecloud or"):
        choose_runtime("docker", None)
    with pytest.raises(SpecError, match="'pyxis' cannot be checked with; write one of charliecloud, podman, docker"):
        choose_runtime("pyxis", None)
    for name in ("ch-run", "podman"):
        (tmp_path / name).unlink()
    with pytest.raises(ImageError, match="none of charliecloud, podman and docker starts containers here"):
        choose_runtime(None, "charliecloud")


# Real containers


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of what `make setup` has made for the dev cluster, whose jobs use the original."""
    folder = ROOT / ".cache/debian"
    if not (folder / "etc/xgen-image").is_file():
        pytest.skip("no .cache/debian; write make setup")
    copy = tmp_path_factory.mktemp("images") / "xgen-cpu"
    subprocess.run(["cp", "--archive", "--reflink=auto", folder, copy], check=True, timeout=120)
    yield copy
    remove_tree(copy)


@made.needs("ch-run")
def test_an_image_says_what_is_in_it(debian: Path) -> None:
    done = run(debian, "--runtime", "charliecloud")
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[1:])
    assert lines["python"].startswith("3.")
    assert lines["os"].startswith("Debian GNU/Linux 12")
    assert (lines["glibc"], lines["torch"], lines["user"]) == ("2.36", "absent", f"{os.getuid()}:{os.getgid()}")


@made.needs("podman", "runc")
@made.as_root
def test_podman_says_the_same_as_charliecloud(debian: Path, containers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.fast_container_settings(containers, monkeypatch)
    image = Image("xgen-cpu", "folder", str(debian.resolve()))
    inside = look_inside("podman", image, [], ["python3"])
    assert inside.glibc == "2.36"
    if shutil.which("ch-run"):
        assert inside == look_inside("charliecloud", image, [], ["python3"])


@made.needs("ch-run")
def test_the_mounted_environment_of_the_cluster_is_checked(debian: Path, tmp_path: Path) -> None:
    """An environment of another Python than the image's, mounted onto a folder that every image has."""
    other = tmp_path / "env"
    (other / "bin").mkdir(parents=True)
    python = "/usr/local/bin/python3" if (debian / "usr/local/bin/python3").is_symlink() else "/usr/bin/python3"
    (other / "bin/python").symlink_to(python)
    (other / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.19.1\n")
    profile = tmp_path / "here.yaml"
    profile.write_text(
        f"scheduler: local\nrun_root: {tmp_path}\npartitions: {{main: {{max_time: 1h, default: true}}}}\n"
        f"container:\n  runtime: charliecloud\n  image_dir: {debian.parent}\n  python: /mnt/bin/python\n"
        f"  mounts: ['{other}:/mnt']\n"
    )
    done = run("xgen-cpu", "--cluster", profile, "--json")
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)
    assert said["ok"] is False
    assert f"the environment {other} is of Python 3.19, and its packages are not found" in done.stderr


@made.needs("ch-run")
@made.needs_busybox()
def test_an_image_without_a_python_is_an_error(tmp_path: Path) -> None:
    made.root_folder(tmp_path / "image")
    for name in ("proc", "sys", "tmp"):
        (tmp_path / "image" / name).mkdir()
    for name in ("hosts", "resolv.conf", "passwd", "group"):
        (tmp_path / "image/etc" / name).touch()
    done = run(tmp_path / "image", "--runtime", "charliecloud")
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}/image: has no python3; build it with a Python\n"


@made.needs("ch-run")
def test_an_image_that_is_not_there_or_of_another_format_is_an_error_with_the_fix(tmp_path: Path) -> None:
    done = run("gone", "--image-dir", tmp_path, "--runtime", "charliecloud")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "'gone' is not there as" in done.stderr
    (tmp_path / "x.sqsh").write_bytes(b"hsqs")
    done = run("x", "--image-dir", tmp_path, "--runtime", "charliecloud")
    assert "write `xgen image import" in done.stderr and "--format folder" in done.stderr
    done = run("x", XGEN_CLUSTER="")
    assert done.returncode == 2 and "--cluster" in done.stderr


@made.needs("ch-run")
def test_a_python_that_does_not_answer_is_given_up(tmp_path: Path, debian: Path) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "python3").chmod(0o755)
    image = Image("slow", "folder", str(debian.resolve()))
    with pytest.raises(ImageError, match="did not answer within 2 s"):
        look_inside("charliecloud", image, [Mount(source=str(tmp_path), target="/mnt")], ["/mnt/python3"], timeout=2)
