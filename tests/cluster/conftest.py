"""The dev SLURM, brought up once for all tests in this folder, and what they do with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.together import Together, is_together
from tests.conftest import ROOT, xgen
from xgen.runs import AttemptOutcome, Event, EventName, RunDir, read_attempt_outcome, read_events

RUNTIMES = ("none", "charliecloud", "podman", "docker")  # that run for real here


def wait_until(condition: Callable[[], object], timeout: float, what: str) -> None:
    """Poll until the condition holds; fails the test with `what` when it does not in time (seconds)."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout:.0f} s: {what}")
        time.sleep(0.1)


@dataclass(frozen=True)
class Cluster:
    """A profile of the dev SLURM with a run root of its own."""

    profile: Path
    run_root: Path

    def submit(self, spec: Path | str, *settings: str, runtime: str | None = None) -> RunDir:
        options = [part for setting in settings for part in ("--set", setting)]
        if runtime is not None:
            options += ["--runtime", runtime]
        done = xgen("submit", str(spec), "--cluster", str(self.profile), "--json", *options)
        assert done.returncode == 0, done.stderr
        return RunDir(Path(json.loads(done.stdout)["path"]))

    def xgen(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return xgen(*arguments, "--cluster", str(self.profile))

    def status(self, run: RunDir) -> dict[str, object]:
        done = self.xgen("status", run.name, "--json")
        assert done.returncode == 0, done.stderr
        status: dict[str, object] = json.loads(done.stdout)["status"]
        return status

    def preempt(self, seconds: int = 1) -> None:
        """Take all GPUs with a job of the partition that preempts."""
        sbatch("--partition=gpu", "--nodes=4", "--gpus-per-node=8", "--wrap", f"sleep {seconds}")


def sbatch(*arguments: str) -> str:
    done = subprocess.run(
        ["sbatch", "--parsable", "--time=2", "--mem=100M", "--output=/dev/null", *arguments],
        env={"PATH": os.environ["PATH"]},  # SLURM keeps the environment of whoever submits
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def scontrol(*arguments: str, check: bool = True) -> str:
    return subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=60, check=check).stdout


def empty_the_queue(whose: str = "--user=root") -> None:
    """Cancels jobs until there are none, for one that is cancelled may have submitted another. `whose`: an option that
    scancel and squeue share."""

    def is_empty() -> bool:
        subprocess.run(["scancel", whose], check=False, timeout=60)
        return not subprocess.run(["squeue", "-h", whose], capture_output=True, timeout=60, check=True).stdout

    wait_until(is_empty, 60, f"a queue without jobs of {whose}")


def has_event(run: RunDir, name: EventName, attempt: int | None = None) -> Event | None:
    return next((e for e in read_events(run) if e.event == name and attempt in (None, e.attempt)), None)


def outcome(run: RunDir, attempt: int) -> AttemptOutcome:
    found = read_attempt_outcome(run, attempt)
    assert found is not None, f"attempt {attempt} of {run.name} has no outcome"
    return found


def wait_for_event(run: RunDir, name: EventName, attempt: int | None = None, timeout: float = 90) -> Event:
    wait_until(lambda: has_event(run, name, attempt), timeout, f"{name} of {run.name}, attempt {attempt}: {_tail(run)}")
    found = has_event(run, name, attempt)
    assert found is not None
    return found


def wait_for_steps(run: RunDir, attempt: int, number: int = 5, rank: int = 0, timeout: float = 60) -> None:
    """Until a counter job (work/counter.py) has done that many steps in an attempt."""
    wait_until(lambda: len(steps(run, attempt, rank)) >= number, timeout, f"{number} steps of {run.name}: {_tail(run)}")


def steps(run: RunDir, attempt: int, rank: int = 0) -> list[int]:
    """The steps that a rank of a counter job has done in an attempt."""
    path = run.path / f"steps.{rank}"
    rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [int(row[0]) for row in rows if len(row) == 2 and int(row[1]) == attempt]


def task_pids(run: RunDir) -> dict[int, int]:
    """Process id by rank of the tasks of a run that are alive on this machine."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"xgen.cli.task" in words and os.fsencode(run.path) in words:
                env = dict(p.split(b"=", 1) for p in (folder / "environ").read_bytes().split(b"\0") if b"=" in p)
                found[int(env[b"SLURM_PROCID"])] = int(folder.name)
        except (OSError, KeyError):
            continue
    return found


def _tail(run: RunDir) -> str:
    logs = sorted(run.attempts_dir.glob("*/*.log"))
    texts = [f"{p.parent.name}/{p.name}: {p.read_text(errors='replace')[-800:]}" for p in logs[-4:]]
    return "\n".join([*(e.to_line().strip() for e in read_events(run)[-8:]), *texts])


@pytest.fixture(scope="session")
def _dev_slurm() -> Iterator[None]:
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        pytest.skip("the dev SLURM needs root on Debian")
    was_up = subprocess.run([ROOT / "slurm/dev/status"], capture_output=True, timeout=60, check=False).returncode == 0
    subprocess.run([ROOT / "slurm/dev/up"], check=True, timeout=180)
    yield
    if not was_up:
        subprocess.run([ROOT / "slurm/dev/down"], check=True, timeout=120)


@pytest.fixture(scope="session")
def image_dir(_dev_slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of the dev cluster in each format that runs here."""
    folder = tmp_path_factory.mktemp("images")
    source = str((ROOT / ".cache/images/xgen-cpu").resolve())
    formats = ("--format", "folder", "--format", "tar")
    done = xgen("image", "import", source, "--name", "xgen-cpu", *formats, "--image-dir", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def _profile(folder: Path) -> Cluster:
    """The dev profile with a run root in the folder."""
    profile = yaml.safe_load((ROOT / "slurm/clusters/dev.yaml").read_text())
    profile["run_root"] = str(folder / "runs")
    # The counter job of most tests needs no container; those that train take the profile's own.
    profile["container"] = {
        "runtime": "none",
        "python": str(ROOT / ".venv/bin/python"),
        "image_dir": str(ROOT / ".cache/images"),
        "mounts": [str(ROOT / ".venv")],
    }
    file = folder / "dev.yaml"
    file.write_text(yaml.safe_dump(profile))
    return Cluster(file, folder / "runs")


@pytest.fixture
def cluster(request: pytest.FixtureRequest, _dev_slurm: None, tmp_path: Path) -> Iterator[Cluster]:
    """The dev profile with a run root for this test; what it leaves in the queue is cancelled."""
    yield _profile(tmp_path)
    if not is_together(request.node):  # it has not run here
        empty_the_queue()
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)


@pytest.fixture(scope="session")
def _together(
    request: pytest.FixtureRequest, _dev_slurm: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Together]:
    """All tests that run at once, done."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function) and is_together(item)]
    fixtures: dict[str, Callable[[Path], Any]] = {"cluster": _profile, "tmp_path": lambda folder: folder}
    if any("boxed" in item.fixturenames for item in items):
        images = request.getfixturevalue("image_dir")
        subprocess.run([ROOT / "slurm/dev/up", "--docker"], check=True, timeout=180)
        fixtures["boxed"] = lambda folder: _with_images(_profile(folder), images)
    folders: list[Path] = []

    def folder(name: str) -> Path:
        folders.append(tmp_path_factory.mktemp(name))
        return folders[-1]

    together = Together(items, folder, fixtures)
    empty_the_queue()
    yield together
    for place in folders:
        shutil.rmtree(place / "runs", ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not is_together(pyfuncitem):
        return None
    pyfuncitem._request.getfixturevalue("_together").report(pyfuncitem)
    return True


@pytest.fixture(scope="session")
def undisturbed(_dev_slurm: None, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A small training on two nodes, ended: what those that are preempted or killed are compared with."""
    from tests.cluster.test_training import SMALL, SPEC

    run = _profile(tmp_path_factory.mktemp("undisturbed")).submit(SPEC, *SMALL, "resources.partition=gpu")
    wait_for_event(run, "finished", timeout=180)
    return run


@pytest.fixture
def container_cluster(cluster: Cluster, tmp_path: Path) -> Cluster:
    """The dev profile's own runtime: charliecloud."""
    profile = yaml.safe_load(cluster.profile.read_text())
    profile["container"]["runtime"] = "charliecloud"
    file = tmp_path / "container.yaml"
    file.write_text(yaml.safe_dump(profile))
    return replace(cluster, profile=file)


def _with_images(cluster: Cluster, image_dir: Path) -> Cluster:
    profile = yaml.safe_load(cluster.profile.read_text())
    profile["container"]["image_dir"] = str(image_dir)
    file = cluster.profile.with_name("boxed.yaml")
    file.write_text(yaml.safe_dump(profile))
    return replace(cluster, profile=file)


@pytest.fixture
def boxed(cluster: Cluster, image_dir: Path) -> Cluster:
    """The dev cluster with an image for every runtime, and a Docker daemon that all nodes share."""
    # For every test: those of the dev SLURM itself end it, and the daemon with it.
    subprocess.run([ROOT / "slurm/dev/up", "--docker"], check=True, timeout=180)
    return _with_images(cluster, image_dir)
