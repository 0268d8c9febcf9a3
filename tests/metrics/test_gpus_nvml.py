"""`xgen exporter --gpus`: nvidia-ml-py against a driver's library that is compiled here. No real GPU was asked."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import PROVISIONED, ROOT, xgen
from tests.metrics.fake_slurm import read_page, value
from tests.metrics.test_exporter_cli import write
from xgen.metrics.gpu.nvml import _VALUES

HOST = socket.gethostname().partition(".")[0]
GPU0 = {
    "gpu": "0", "UUID": "GPU-0000-0", "pci_bus_id": "00000000:07:00.0", "device": "nvidia0",
    "modelName": "NVIDIA H100 80GB HBM3", "Hostname": HOST,
}  # fmt: skip
GPU1 = {**GPU0, "gpu": "1", "UUID": "GPU-0000-1", "pci_bus_id": "00000000:08:00.0", "device": "nvidia1"}


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("fake_nvml.c")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None and not PROVISIONED:
        pytest.skip("no C compiler here")
    assert compiler, "make setup installs gcc"
    target = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", target, source], check=True, timeout=60)
    return folder


@pytest.fixture
def driver(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder by which a test says what the GPUs do."""
    folder = tmp_path / "driver"
    folder.mkdir()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.setenv("FAKE_NVML", str(folder))
    return folder


def polls(driver: Path, *between: str) -> list[dict[str, list[float] | str]]:
    """Of one process, what each poll says, by name and GPU; `between` are files that appear before the next one."""
    code = (
        "import json, pathlib, sys\n"
        "from xgen.metrics.exporter import CollectorError\nfrom xgen.metrics.gpu import Nvml\n"
        "nvml = Nvml()\n"
        "for change in ['', *sys.argv[2:]]:\n"
        "    name, _, text = change.partition('=')\n"
        "    if name.startswith('-'): pathlib.Path(sys.argv[1], name[1:]).unlink()\n"
        "    elif name: pathlib.Path(sys.argv[1], name).write_text(text)\n"
        "    try: print(json.dumps({m.name: [s.value for s in m.samples] for m in nvml.poll()}))\n"
        "    except CollectorError as error: print(json.dumps({'error': str(error)}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(driver), *between], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_names_units_and_labels_are_those_of_dcgm_exporter(driver: Path, tmp_path: Path) -> None:
    done = xgen("exporter", "--gpus", "--cluster", str(write(tmp_path)), "--once")
    assert done.returncode == 0, done.stderr
    series = read_page(done.stdout)
    expected = {
        "SM_CLOCK": 1980, "MEM_CLOCK": 2619, "GPU_TEMP": 61, "POWER_USAGE": 651.5, "GPU_UTIL": 90, "MEM_COPY_UTIL": 40,
        "TOTAL_ENERGY_CONSUMPTION": 123456789012, "PCIE_REPLAY_COUNTER": 3, "FB_USED": 70000, "FB_FREE": 11047,
        "ECC_SBE_VOL_TOTAL": 10, "ECC_SBE_AGG_TOTAL": 11, "ECC_DBE_VOL_TOTAL": 12, "ECC_DBE_AGG_TOTAL": 13,
        "CORRECTABLE_REMAPPED_ROWS": 5, "UNCORRECTABLE_REMAPPED_ROWS": 2, "ROW_REMAP_FAILURE": 1, "XID_ERRORS": 0,
    }  # fmt: skip
    assert {name: value(series, f"DCGM_FI_DEV_{name}", **GPU0) for name in expected} == expected
    assert expected.keys() == {*_VALUES, "XID_ERRORS"}
    assert value(series, "DCGM_FI_DEV_GPU_UTIL", **GPU1) == 91
    assert not [name for name, _ in series if name.startswith(("slurm_node", "xgen_run"))]


def test_what_a_gpu_does_not_have_is_absent(driver: Path, tmp_path: Path) -> None:
    series = read_page(xgen("exporter", "--gpus", "--cluster", str(write(tmp_path)), "--once").stdout)
    absent = {name for name in _VALUES if value(series, f"DCGM_FI_DEV_{name}", **GPU1) is None}
    rows = {"CORRECTABLE_REMAPPED_ROWS", "UNCORRECTABLE_REMAPPED_ROWS", "ROW_REMAP_FAILURE"}
    assert absent == {name for name in _VALUES if name.startswith("ECC_")} | rows | {"TOTAL_ENERGY_CONSUMPTION"}


def test_the_last_xid_stays_also_of_a_gpu_that_fell_off_the_bus(driver: Path) -> None:
    first, errors, lost = polls(driver, "xid=0 63\n1 31\n0 79\n", "lost=")
    assert first["DCGM_FI_DEV_XID_ERRORS"] == [0, 0]
    assert errors["DCGM_FI_DEV_XID_ERRORS"] == [79, 31]
    assert lost["DCGM_FI_DEV_XID_ERRORS"] == [79, 31]
    assert (errors["DCGM_FI_DEV_GPU_UTIL"], lost["DCGM_FI_DEV_GPU_UTIL"]) == ([90, 91], [91])


def test_a_driver_that_was_loaded_anew_is_found_again(driver: Path) -> None:
    found = polls(driver, "gone=", "still=", "-gone=")
    assert [one.get("error") for one in found] == [
        None, "NVML: Uninitialized", "NVML: Driver Not Loaded", None
    ]  # fmt: skip
    assert found[3]["DCGM_FI_DEV_GPU_UTIL"] == [90, 91]


def test_it_serves_on_its_own_port_and_knows_no_runs(driver: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "xgen.cli.main",
        "exporter",
        "--gpus",
        "--cluster",
        str(write(tmp_path, ", gpu_port: 0")),
    ]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)/metrics", process.stderr.readline())
            assert found
            base = f"http://127.0.0.1:{found[1]}"
            with urllib.request.urlopen(f"{base}/-/healthy", timeout=10) as answer:
                assert answer.status == 200
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{base}/sd", timeout=10)
        finally:
            process.kill()


def test_without_a_driver_or_the_package_one_line_says_what_to_do(tmp_path: Path) -> None:
    profile = str(write(tmp_path))
    done = xgen("exporter", "--gpus", "--cluster", profile)
    assert done.returncode == 2
    expected = "--gpus: NVML Shared Library Not Found: is there an NVIDIA GPU here, and its driver loaded?"
    assert done.stderr.strip().endswith(expected)
    (tmp_path / "pynvml.py").write_text("raise ImportError('not here')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "xgen.cli.main", "exporter", "--gpus", "--cluster", profile]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("--gpus: nvidia-ml-py is not installed; write: pip install 'xgen[nvml]'")
