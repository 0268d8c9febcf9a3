"""A sweep and a submission, on a real SLURM: points are stopped early and preempted alone, and what a controller that
freezes or a client that dies leaves behind is one job."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from tests.cluster.conftest import Cluster, has_event, wait_for_event, wait_until
from tests.conftest import ROOT
from xgen.runs import RunDir
from xgen.runs.points import why_ended

STATE = Path("/var/lib/xgen-dev-slurm")
# A training without torch: its loss is its rate. It saves nothing, and a point that is to be preempted waits for that.
WORK = """
import json, os, pathlib, signal, sys, time
run, rate = pathlib.Path(os.environ["XGEN_RUN_DIR"]), float(sys.argv[1])
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(75))
with (run / "tries").open("a") as file:
    file.write("x")
if rate == 2 and (run / "tries").read_text() == "x":
    time.sleep(120)
for step in (5, 10, 15):
    with (run / "metrics/steps.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "loss": rate}) + "\\n")
    verdict, deadline = run.parent / f".at-{step}" / run.name, time.time() + 60
    while step == 10 and not verdict.exists() and time.time() < deadline:
        time.sleep(0.02)
    if step == 10 and not json.loads(verdict.read_text())["kept"]:
        time.sleep(120)
"""


def test_points_are_preempted_alone_and_the_worst_is_ended_by_what_the_others_left(
    cluster: Cluster, tmp_path: Path
) -> None:
    base = {
        "kind": "command", "command": [sys.executable, "-c", WORK, "1"], "lead": "30s",
        "resources": {"partition": "gpu", "gpus_per_node": 1, "memory": "200MB", "time": "5m"},
        "container": {"image": "xgen-cpu"},
    }  # fmt: skip
    spec = {
        "kind": "sweep", "name": "rates", "spec": base, "over": {"command.3": ["2", "1", "3", "9"]},
        "array": {"at_once": 2}, "stop": {"metric": "loss", "at": [10]}, "metric": "loss",
    }  # fmt: skip
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(spec))
    run = cluster.submit(tmp_path / "sweep.yaml", runtime="none")
    first = run.shard("", 0)
    wait_for_event(first, "container_ready")
    wait_until((first.path / "tries").exists, 60, "the first try")
    wait_until(lambda: why_ended(run.shard("", 3)), 120, "the end of the worst")  # the others run beside it in turn
    job = has_event(first, "started")
    assert job is not None
    # Its step: to a shard beside others that wait, scancel says it again and again, to its next attempt too.
    subprocess.run(["scancel", "--signal=USR2", f"{job.job_id}.0"], check=True, timeout=60)
    wait_for_event(run, "finished")
    assert [(run.shard("", n).path / "tries").read_text() for n in range(4)] == ["xx", "x", "x", "x"]
    assert why_ended(run.shard("", 3)) == "at step 10: loss 9 is number 3 of 3"
    table = json.loads(cluster.xgen("sweep", run.name, "--json").stdout)["points"]
    assert [(one["point"], one["state"]) for one in table] == [
        (1, "finished"), (0, "finished"), (2, "finished"), (3, "stopped"),
    ]  # fmt: skip


def jobs_of(run: str) -> list[str]:
    done = subprocess.run(
        ["squeue", "--noheader", "--states=all", f"--name={run}", "--format=%i"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.split()


def submit_hello(cluster: Cluster, run_id: str, path: str = "") -> subprocess.Popen[str]:
    words = ["submit", "jobs/tiny/hello.yaml", "--cluster", str(cluster.profile), "--runtime", "none", "--id", run_id]
    environment = {**os.environ, "XGEN_SCHEDULER_TIMEOUT": "5", "PATH": f"{path}:{os.environ['PATH']}"}
    return subprocess.Popen(
        [sys.executable, "-m", "xgen.cli.main", *words, "--json"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_controller_that_freezes_and_a_client_that_is_killed_leave_one_job_each(
    cluster: Cluster, tmp_path: Path
) -> None:
    # The controller stands still from the moment that sbatch is called, for longer than sbatch is given.
    controller, sbatch = int((STATE / "run/slurmctld.pid").read_text()), shutil.which("sbatch")
    shim = tmp_path / "sbatch"
    freeze = f'[ "$1" = --test-only ] || kill -STOP {controller}'
    shim.write_text(f'#!/bin/sh\n{freeze}\nexec {sbatch} "$@"\n')
    shim.chmod(0o755)
    try:
        client = submit_hello(cluster, "frozen", str(tmp_path))
        told = cluster.run_root / "hello-frozen/jobs/0.asked"
        wait_until(told.exists, 60, "sbatch")
        time.sleep(8)
    finally:
        os.kill(controller, signal.SIGCONT)
    said, errors = client.communicate(timeout=120)
    assert client.returncode == 0, errors
    assert jobs_of("hello-frozen") == [json.loads(said)["job_id"]]
    assert "asking whether it has heard the submission" in errors
    # The client dies after sbatch was heard and before it could note the job.
    shim.write_text(f'#!/bin/sh\n{sbatch} "$@"\n[ "$1" = --test-only ] || exec sleep 60\n')
    client = submit_hello(cluster, "killed", str(tmp_path))
    wait_until(lambda: jobs_of("hello-killed"), 60, "the job")
    client.kill()
    client.communicate(timeout=60)
    run = RunDir(cluster.run_root / "hello-killed")
    assert not run.job_file(0).exists()
    assert cluster.status(run)["state"] in ("pending", "running", "finished")
    assert [run.job_file(0).read_text().strip()] == jobs_of(run.name)
    assert "nothing to resume" in cluster.xgen("resume", run.name).stderr
    assert [event.reason for event in [has_event(run, "queued")] if event] == [
        "found in the queue: the client that submitted it has died"
    ]
