"""Two SLURMs at once, each behind a login node of its own: what one is given stays there, and one list has both."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster, wait_for_event, wait_until
from tests.conftest import ROOT
from tests.remote.conftest import Laptop, Login, make_laptop, make_login
from tests.remote.conftest import login as login  # noqa: PLC0414 - a fixture
from xgen.runs import RunDir

pytestmark = pytest.mark.cluster
STATE = Path("/var/lib/xgen-dev-slurm-second")
SPEC = """\
kind: command
name: waits
command: [sh, -c, 'hostname; exec sleep 300']
resources: {partition: preempt, nodes: 1, gpus_per_node: 1, memory: 100MB, time: 6m}
lead: 10s
"""


@pytest.fixture
def second(tmp_path: Path, login: Login) -> Iterator[Login]:
    """The login node of a second SLURM, and nothing of it left behind."""
    (tmp_path / "login2").mkdir()
    there = make_login(tmp_path / "login2", login.sockets, login.folder, SLURM_CONF=str(STATE / "etc/slurm.conf"))
    try:
        subprocess.run([ROOT / "slurm/dev/up", "--second"], check=True, timeout=180)
        there.start()
        yield there
        there.stop()
    finally:
        subprocess.run([ROOT / "slurm/dev/down", "--second"], check=True, timeout=120)
    assert not STATE.exists()


@dataclass(frozen=True)
class Two:
    laptop: Laptop

    def submit(self, name: str) -> RunDir:
        done = self.laptop.plain("submit", "waits.yaml", "--cluster", name, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        return RunDir(Path(json.loads(done.stdout)["path"]))

    def listed(self) -> tuple[dict[str, list[str]], list[str]]:
        """The words of each row of `xgen status --all` by run, and what it said of the two besides."""
        done = self.laptop.plain("status", "--all", COLUMNS="250")
        assert done.returncode == 0, done.stderr
        out, err = (
            [x for x in text.splitlines() if x.startswith(("first", "second"))] for text in (done.stdout, done.stderr)
        )
        return {row.split()[1]: row.split() for row in out}, err


@pytest.fixture
def two(cluster: Cluster, login: Login, second: Login, tmp_path: Path) -> Two:
    laptop = make_laptop(tmp_path / "laptop", login)
    (laptop.project.path / "waits.yaml").write_text(SPEC)
    with (tmp_path / "laptop/known_hosts").open("a") as known:
        known.write(f"[localhost]:{second.port} {(login.folder / 'host_key.pub').read_text()}")
    profile = cluster.profile.read_text()
    for name, node, root in (("first", login, "runs"), ("second", second, "runs2")):
        mine, its = tmp_path / "config/xgen/clusters", node.folder / "home/.config/xgen/clusters"
        for folder in (mine, its):
            folder.mkdir(parents=True, exist_ok=True)
        (mine / f"{name}.yaml").write_text(f"ssh: {{host: localhost, port: {node.port}}}\n")
        (its / f"{name}.yaml").write_text(profile.replace(str(cluster.run_root), str(tmp_path / root)))
    return Two(laptop)


def jobs(conf: Path | None = None) -> list[str]:
    """Numbers of the jobs that a SLURM has in its queue."""
    env = {**os.environ, **({} if conf is None else {"SLURM_CONF": str(conf)})}
    done = subprocess.run(["squeue", "-h", "-o", "%A"], env=env, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def test_runs_of_two_slurms_are_one_list_and_each_ends_goes_on_and_is_lost_alone(two: Two) -> None:
    one, other = two.submit("first"), two.submit("second")
    here, there = (wait_for_event(run, "container_ready", 1, timeout=120) for run in (one, other))
    assert (jobs(), jobs(STATE / "etc/slurm.conf")) == ([here.job_id], [there.job_id])
    rows, said = two.listed()
    assert said == []
    assert [rows[one.name][:3], rows[other.name][:3]] == [
        ["first", one.name, "running"],
        ["second", other.name, "running"],
    ]
    logs = [two.laptop.plain("logs", run.name, "--cluster", of) for run, of in ((one, "first"), (other, "second"))]
    assert [done.stdout.split()[1][0] for done in logs] == ["n", "m"]  # nodes n1 to n4, and m1 to m4

    # The batch script goes on where it is, by the same slurm.conf.
    done = two.laptop.plain("requeue", other.name, "--cluster", "second")
    assert (done.returncode, done.stderr) == (0, "")
    again = wait_for_event(other, "container_ready", 2, timeout=120)
    assert (jobs(), jobs(STATE / "etc/slurm.conf")) == ([here.job_id], [again.job_id])

    # One controller is gone: its runs are listed by what they wrote, and the others as ever.
    controller = int((STATE / "run/slurmctld.pid").read_text())
    os.kill(controller, 9)
    rows, said = two.listed()
    assert rows[one.name][2] == "running"
    assert rows[other.name][0] == "second"
    assert len(said) == 1
    assert said[0].startswith("second: ")
    subprocess.run([ROOT / "slurm/dev/up", "--second"], check=True, timeout=180)

    done = two.laptop.plain("cancel", other.name, "--cluster", "second")
    assert (done.returncode, done.stderr) == (0, "")
    wait_for_event(other, "cancelled", timeout=120)
    wait_until(lambda: jobs(STATE / "etc/slurm.conf") == [], 60, "an empty queue")
    assert jobs() == [here.job_id]
    rows, said = two.listed()
    assert (rows[one.name][2], rows[other.name][2], said) == ("running", "cancelled", [])
