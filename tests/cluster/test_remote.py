"""From a laptop without SLURM, over a real sshd, to a real SLURM: submit, status, logs that outlive sshd, cancel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster, wait_for_event, wait_until
from tests.remote.conftest import Login, make_laptop
from tests.remote.conftest import login as login  # noqa: PLC0414 - a fixture
from xgen.runs import RunDir

SPEC = """\
kind: command
name: counts
command: [sh, -c, 'i=0; while [ $i -lt 3000 ]; do i=$((i + 1)); echo line $i; sleep 0.1; done']
resources: {partition: gpu, nodes: 1, gpus_per_node: 1, memory: 100MB, time: 5m}
lead: 30s
"""
pytestmark = pytest.mark.cluster


def test_a_run_is_submitted_followed_over_a_restart_of_sshd_and_cancelled_from_a_laptop(
    cluster: Cluster, login: Login, tmp_path: Path
) -> None:
    laptop = make_laptop(tmp_path / "laptop", login)
    (laptop.project.path / "counts.yaml").write_text(SPEC)
    there = ("--cluster", str(cluster.profile))
    done = laptop.xgen("submit", "counts.yaml", *there, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    run = RunDir(Path(json.loads(done.stdout)["path"]))
    out, err = tmp_path / "out", tmp_path / "err"
    follower = laptop.start("logs", "-f", run.name, *there, stdout=out, stderr=err)
    wait_until(out.read_text, 200, "lines")
    login.stop()
    login.start()
    wait_until(lambda: "connected again" in err.read_text(), 200, "a connection")
    assert json.loads(laptop.xgen("status", run.name, *there, "--json").stdout)["status"]["state"] == "running"

    # The same SLURM by a profile that leads there, beside a cluster of this machine: one list.
    for folder in (tmp_path / "config", login.folder / "home/.config"):
        (folder / "xgen/clusters").mkdir(parents=True, exist_ok=True)
    (tmp_path / "config/xgen/clusters/dev.yaml").write_text(f"ssh: {{host: localhost, port: {login.port}}}\n")
    (login.folder / "home/.config/xgen/clusters/dev.yaml").write_text(cluster.profile.read_text())
    mine = laptop.plain("submit", "hello.yaml", "--cluster", "local", "--json")
    assert mine.returncode == 0, mine.stderr
    listed = laptop.plain("status", "--all", COLUMNS="200")
    assert (listed.returncode, listed.stderr) == (0, "")
    rows = {line.split()[1]: line.split() for line in listed.stdout.splitlines()[1:3]}
    assert rows[run.name][:3] == ["dev", run.name, "running"]
    assert rows[json.loads(mine.stdout)["run"]][0] == "batch,boxed,local"

    done = laptop.xgen("cancel", run.name, *there)
    assert (done.returncode, done.stderr) == (0, "")
    wait_for_event(run, "cancelled", timeout=200)
    assert follower.wait(200) == 0
    # Between the two streams who follows knows the order better than who comes later.
    assert sorted(out.read_text().splitlines()) == sorted(cluster.xgen("logs", run.name).stdout.splitlines())
