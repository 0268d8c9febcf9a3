"""Two people on a real SLURM: who may cancel what is its decision, and what it refuses has changed nothing."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster, empty_the_queue, wait_until
from tests.cluster.test_contract import COUNTER, counter
from tests.conftest import ROOT
from xgen.cluster import slurm
from xgen.runs import RunDir, read_events

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.getuid() != 0, reason="acts as two people: needs root"),
]
OTHER = pwd.getpwnam("nobody")


@pytest.fixture
def open_cluster(cluster: Cluster) -> Iterator[Cluster]:
    """With a run root that other people may look into, as that of a site."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        profile = Path(folder) / "open.yaml"
        root = f"{folder}/runs"
        profile.write_text(cluster.profile.read_text().replace(str(cluster.run_root), root))
        yield Cluster(profile, Path(root))
        empty_the_queue()  # whose jobs write in the folder


def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
    return by_nobody(sys.executable, "-m", "xgen.cli.main", *arguments)


def by_nobody(*command: str) -> subprocess.CompletedProcess[str]:
    who = ["setpriv", f"--reuid={OTHER.pw_uid}", f"--regid={OTHER.pw_gid}", "--clear-groups"]
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*who, *command],
        env=env, cwd="/", capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def sacctmgr(*arguments: str) -> None:
    subprocess.run(["sacctmgr", "-i", *arguments], check=True, capture_output=True, timeout=60)


def queued() -> set[str]:
    """Names of the jobs of both."""
    return {row.name for row in slurm.queue([OTHER.pw_uid])}


def is_marked(run: RunDir) -> bool:
    return run.cancelled_file.exists() or any(event.event == "cancelled" for event in read_events(run))


def test_somebody_else_s_run_goes_on_where_slurm_refuses_to_cancel_it(open_cluster: Cluster) -> None:
    run = open_cluster.submit(COUNTER, counter(5000))
    done = as_nobody("cancel", str(run.path))
    assert done.returncode == 3, done.stderr
    words = "Access/permission denied; " + (
        f"{run.name} is root's, charged to account root, and goes on as before. "
        "Who may cancel it: root, coordinators of the account, operators and administrators of SLURM\n"
    )
    assert done.stderr.startswith("the scheduler: scancel: error: Kill job error on job id ")
    assert done.stderr.endswith(words)
    assert not is_marked(run)
    assert run.name in queued()
    assert open_cluster.status(run)["state"] in ("pending", "running")


def test_who_slurm_lets_cancel_somebody_else_s_run_marks_it_too(open_cluster: Cluster) -> None:
    """root, an administrator of SLURM, of a job of nobody."""
    run = RunDir(open_cluster.run_root / "counter-abc234")
    run.create()
    shutil.copy(COUNTER, run.spec_file)
    os.chown(run.path, OTHER.pw_uid, OTHER.pw_gid)
    sacctmgr("add", "user", OTHER.pw_name, "account=research")
    try:
        job = [f"--job-name={run.name}", "--time=2", "--mem=100M", "--output=/dev/null", "--chdir=/"]
        wait_until(lambda: by_nobody("sbatch", *job, "--wrap", "sleep 600").returncode == 0, 60, "nobody submits")
        done = open_cluster.xgen("cancel", run.name)
        assert (done.returncode, done.stderr) == (0, "")
        assert "; SLURM cancelled it\n" in done.stdout
        assert is_marked(run)
    finally:
        slurm.cancel(run.name, OTHER.pw_uid)
        wait_until(lambda: run.name not in queued(), 60, "the job is gone")
        sacctmgr("remove", "user", OTHER.pw_name)
