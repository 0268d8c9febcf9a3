"""`xgen exporter` as a person starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, xgen
from tests.metrics.fake_slurm import DOWN, FakeSlurm, read_page, slurm, value, wait_for

__all__ = ["slurm"]
PROFILE = "scheduler: slurm\nrun_root: {root}\npartitions: {{gpu: {{}}}}\nmetrics: {{port: 0{more}}}\n"


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    return write(tmp_path)


def write(folder: Path, more: str = "") -> Path:
    (folder / "runs").mkdir(exist_ok=True)
    file = folder / "atlas.yaml"
    file.write_text(PROFILE.format(root=folder / "runs", more=more))
    return file


@pytest.fixture
def process(slurm: FakeSlurm, profile: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "xgen.cli.main", "exporter", "--cluster", str(profile)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


def test_it_serves_until_it_is_stopped(slurm: FakeSlurm, process: subprocess.Popen[str]) -> None:
    line = first_line(process)
    found = re.fullmatch(r"xgen exporter: .*: (http://127\.0\.0\.1:\d+)/metrics\n", line)
    assert found, line
    deadline = time.monotonic() + 20
    while True:
        with urllib.request.urlopen(f"{found[1]}/metrics", timeout=10) as answer:
            series = read_page(answer.read().decode())
        if value(series, "slurm_nodes_total") == 6:
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not [name for name, _ in series if name.startswith(("python_", "process_"))]
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0


def test_it_ends_at_once_while_a_command_hangs(slurm: FakeSlurm, profile: Path, tmp_path: Path) -> None:
    slurm.say("squeue", f"echo $$ >{tmp_path}/pid; sleep 600")
    command = [sys.executable, "-m", "xgen.cli.main", "exporter", "--cluster", str(profile)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        first_line(process)
        pid = tmp_path / "pid"
        wait_for(lambda: pid.exists() and pid.read_text().strip())
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0
    wait_for(lambda: not Path(f"/proc/{pid.read_text().strip()}").exists(), 2)


def test_once_prints_the_page_and_what_each_part_cost(slurm: FakeSlurm, profile: Path) -> None:
    done = xgen("exporter", "--cluster", str(profile), "--once")
    assert done.returncode == 0, done.stderr
    assert value(read_page(done.stdout), "slurm_gpus_total") == 36
    rows = [line.split() for line in done.stderr.splitlines()]
    names = ["targets", "controller", "queue", "nodes", "scheduler", "shares", "ended", "runs", "settling"]
    names += ["messages", "gpus"]
    assert [row[0] for row in rows] == names
    assert all(re.fullmatch(r"\d+ series \d+\.\d\d s", " ".join(row[1:])) for row in rows)
    slurm.say("sinfo", DOWN)
    done = xgen("exporter", "--cluster", str(profile), "--once")
    assert done.returncode == 1
    assert "nodes: exit: sinfo: slurm_load_jobs error: Unable to contact slurm controller" in done.stderr
    assert value(read_page(done.stdout), "xgen_exporter_collector_success", collector="nodes") == 0


def test_a_cluster_without_slurm_has_its_runs_only(slurm: FakeSlurm, profile: Path) -> None:
    profile.write_text(profile.read_text().replace("scheduler: slurm", "scheduler: local"))
    done = xgen("exporter", "--cluster", str(profile), "--once")
    assert done.returncode == 0, done.stderr
    assert not [name for name, _ in read_page(done.stdout) if name.startswith("slurm_q")]
    assert slurm.calls.read_text() == ""


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (", address: 192.0.2.1", "metrics.address '192.0.2.1', metrics.port 0: Cannot assign requested address; write"),
        (", tls: {cert: /no/cert, key: /no/key}", "metrics.tls: /no/cert: No such file or directory; write a PEM"),
        (", basic_auth: {file: /no/users}", "metrics.basic_auth.file: /no/users: No such file or directory; write a"),
        (", prot: 1", "metrics.prot: "),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(slurm: FakeSlurm, tmp_path: Path, more: str, message: str) -> None:
    done = xgen("exporter", "--cluster", str(write(tmp_path, more)))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_a_port_that_is_taken_is_named(slurm: FakeSlurm, process: subprocess.Popen[str], tmp_path: Path) -> None:
    port = first_line(process).rpartition(":")[2].partition("/")[0]
    file = write(tmp_path)
    file.write_text(file.read_text().replace("port: 0", f"port: {port}"))
    done = xgen("exporter", "--cluster", str(file))
    assert (done.returncode, "Address already in use" in done.stderr, port in done.stderr) == (2, True, True)


def test_it_loads_nothing_that_it_does_not_need(slurm: FakeSlurm, profile: Path) -> None:
    code = (
        "import atexit, json, sys\n"
        "loaded = lambda: json.dumps(sorted({m.partition('.')[0] for m in sys.modules}))\n"
        "atexit.register(lambda: print(loaded(), file=sys.stderr))\n"
        "from xgen.cli.main import main\nsys.argv[0] = 'xgen'\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "exporter", "--cluster", str(profile), "--once"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert "prometheus_client" in loaded
    assert loaded & {"torch", "torchtitan", "numpy", "submitit", "transformers", "datasets", "rich", "pyarrow"} == set()
