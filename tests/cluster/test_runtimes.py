"""One spec, unchanged, under every container runtime that runs here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import (
    RUNTIMES,
    Cluster,
    has_event,
    outcome,
    steps,
    wait_for_event,
    wait_for_steps,
    wait_until,
)
from tests.cluster.test_training import SMALL, SPEC, losses, wait_for_step
from xgen.runs import RunDir

pytestmark = pytest.mark.cluster
WORK = Path(__file__).parent / "work"
DENIED, NO_DRIVER, ABSENT = "Operation not permitted", "No such device or address", "No such file or directory"


def everywhere(cluster: Cluster, spec: Path, *settings: str) -> dict[str, RunDir]:
    return {runtime: cluster.submit(spec, *settings, runtime=runtime) for runtime in RUNTIMES}


def seen(run: RunDir, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.path / f"seen.{rank}.json").read_text())
    return found


def containers() -> str:
    """Names of Docker's containers on this machine, running or not."""
    host = "--host=unix:///var/lib/xgen-dev-slurm/docker.sock"
    command = ["docker", host, "ps", "--all", "--format={{.Names}}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_a_task_sees_what_the_spec_says_and_the_granted_gpus_only(boxed: Cluster, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    os.environ["CLIENT_ONLY"] = "not for jobs"
    try:
        runs = everywhere(boxed, WORK / "probe.yaml", f'container.mounts=["{tmp_path}/data:/data:ro"]')
    finally:
        del os.environ["CLIENT_ONLY"]
    for runtime, run in runs.items():
        wait_for_event(run, "finished", timeout=90)
        for rank in (0, 1):
            it = seen(run, rank)
            assert it["environment"] | {"HOME": None} == {
                "GREETING": "it's $5, all in", "LINES": "one\ntwo, three", "TOKEN": None, "HOME": None,
                "CLIENT_ONLY": None,
            }, runtime  # fmt: skip
            assert sorted(it["opened"]).count(NO_DRIVER) == 2, (runtime, it)
            assert set(it["opened"]) == {NO_DRIVER, DENIED} or set(it["opened"]) == {NO_DRIVER, ABSENT}, (runtime, it)
            assert "" not in it["opened_by_hand"], (runtime, it)
            assert it["opened_by_hand"].count(NO_DRIVER) <= 2, (runtime, it)
            assert (it["here"], it["run"], it["uid"]) == (str(run.code_dir), "", 0), (runtime, it)
            assert it["shm"] > 2**20
            if runtime != "none":
                assert (it["system"], it["slurm"]) == ("Read-only file system", []), (runtime, it)
            if runtime in ("podman", "docker"):  # charliecloud 0.31 mounts what it mounts for writing
                assert (it["code"], it["read_only"]) == ("Read-only file system",) * 2, (runtime, it)
    assert containers() == ""


def test_a_preempted_job_goes_on_at_the_saved_step_under_each_runtime(boxed: Cluster) -> None:
    runs = everywhere(
        boxed, WORK / "counter.yaml", "resources.nodes=1", "resources.gpus_per_node=1", "container.image=xgen-cpu"
    )
    for run in runs.values():
        wait_for_steps(run, attempt=1, number=5)
    boxed.preempt()
    for runtime, run in runs.items():
        wait_for_event(run, "finished", timeout=120)
        assert outcome(run, 1).status == "stopped", (runtime, outcome(run, 1))
        saved = outcome(run, 1).durable_step
        assert saved >= 5, runtime
        assert steps(run, attempt=2)[0] == saved + 1, runtime
        assert steps(run, attempt=1)[-1] == saved, runtime


@pytest.mark.together
@pytest.mark.parametrize("runtime", ["podman", "docker"])
def test_a_client_that_is_killed_takes_its_container_with_it_and_the_run_goes_on(boxed: Cluster, runtime: str) -> None:
    one = ("resources.nodes=1", "resources.gpus_per_node=1", "container.image=xgen-cpu")
    run = boxed.submit(WORK / "counter.yaml", *one, runtime=runtime)
    wait_for_steps(run, attempt=1, number=12)
    (client,) = clients(runtime, run)
    os.kill(client, signal.SIGKILL)
    wait_for_event(run, "requeued", timeout=60)
    assert outcome(run, 1).status == "crashed"
    last = steps(run, attempt=1)[-1]
    wait_for_steps(run, attempt=2, number=3)
    assert steps(run, attempt=1)[-1] == last  # nobody counts on in a container that was left behind
    wait_for_event(run, "finished", timeout=60)
    assert runtime != "docker" or run.name not in containers()


@pytest.mark.together
@pytest.mark.parametrize("runtime", ["podman", "docker"])
def test_scancel_leaves_no_container(boxed: Cluster, runtime: str) -> None:
    one = ("resources.nodes=1", "resources.gpus_per_node=1", "container.image=xgen-cpu")
    run = boxed.submit(WORK / "counter.yaml", *one, runtime=runtime)
    wait_for_steps(run, attempt=1)
    subprocess.run(["scancel", f"--name={run.name}"], check=True, timeout=60)
    wait_for_event(run, "cancelled", timeout=60)
    wait_until(lambda: not clients(runtime, run), 30, "the end of the container's client")
    wait_until(lambda: runtime != "docker" or run.name not in containers(), 10, "the end of the container")


def clients(runtime: str, run: RunDir) -> list[int]:
    """Processes `docker run` or `podman run` of a run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [runtime.encode(), b"run"] and any(run.name.encode() in word for word in words):
            found.append(int(folder.name))
    return found


def test_an_image_that_was_replaced_while_the_job_waited_is_refused(
    boxed: Cluster, image_dir: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "mine.tar"
    shutil.copyfile(image_dir / "xgen-cpu.tar", archive)
    boxed.preempt(4)  # nobody starts meanwhile
    run = boxed.submit(WORK / "probe.yaml", f"container.image={archive}", runtime="docker")
    os.utime(archive, (1, 1))
    event = wait_for_event(run, "failed", timeout=60)
    assert event.reason == f"the image {archive} is not the one that was submitted; restore it, or submit anew"


@pytest.mark.together
@pytest.mark.parametrize("runtime", ["charliecloud", "docker"])
def test_the_doctor_proves_a_runtime_in_a_job_of_its_own(boxed: Cluster, runtime: str) -> None:
    options = ("--prove-runtime", "--runtime", runtime, "--image", "xgen-cpu", "--timeout", "100", "--json")
    done = boxed.xgen("doctor", *options)
    report = json.loads(done.stdout)
    verdicts = {finding["what"]: finding["severity"] for finding in report["findings"]}
    assert (done.returncode, report["proven"]) == (0, True), report
    assert verdicts["signal"] == verdicts["secret"] == verdicts["rendezvous"] == "ok"
    assert verdicts["read-only code"] == ("warning" if runtime == "charliecloud" else "ok")


@pytest.mark.together
def test_the_doctor_says_why_an_image_does_not_start(boxed: Cluster, tmp_path: Path) -> None:
    (tmp_path / "empty/bin").mkdir(parents=True)
    options = ("--prove-runtime", "--runtime", "charliecloud", "--image", str(tmp_path / "empty"), "--timeout", "60")
    done = boxed.xgen("doctor", *options)
    assert done.returncode == 1
    assert "failed   start" in done.stdout
    assert "NOT proven" in done.stdout


def test_training_under_podman_and_docker_is_preempted_and_ends_as_the_undisturbed_one(
    boxed: Cluster, undisturbed: RunDir
) -> None:
    runs = {runtime: boxed.submit(SPEC, *SMALL, runtime=runtime) for runtime in ("podman", "docker")}
    for run in runs.values():
        wait_for_step(run, 5, timeout=240)
    boxed.preempt()
    for runtime, run in runs.items():
        wait_for_event(run, "finished", timeout=300)
        assert outcome(run, 1).status in ("stopped", "finished"), runtime
        assert losses(run) == losses(undisturbed), runtime
        image = json.loads(run.image_file.read_text())
        assert image["kind"] == {"podman": "folder", "docker": "tar"}[runtime]
    assert any(has_event(run, "restore_end", 2) for run in runs.values())
