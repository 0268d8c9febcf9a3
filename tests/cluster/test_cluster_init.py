"""What `xgen cluster init` writes on the dev SLURM is a profile with which the tiny training runs as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster, wait_for_event
from tests.conftest import ROOT, xgen
from xgen.cluster.site import ask_site, preemption
from xgen.spec import load_profile

pytestmark = pytest.mark.cluster


@pytest.mark.together
def test_the_tiny_training_starts_with_the_profile_that_init_wrote(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    done = xgen("cluster", "init", "--out", str(file), "--run-root", str(cluster.run_root))
    assert done.returncode == 0, done.stderr
    run = Cluster(file, cluster.run_root).submit("jobs/tiny/pretrain.yaml")
    try:
        wait_for_event(run, "first_step", timeout=150)
    finally:
        cancelled = xgen("cancel", run.name, "--cluster", str(file))
    assert cancelled.returncode == 0, cancelled.stderr


@pytest.mark.usefixtures("_dev_slurm")
def test_init_finds_out_what_the_dev_profile_says(tmp_path: Path) -> None:
    done = xgen("cluster", "init", "--out", str(tmp_path / "own.yaml"))
    assert done.returncode == 0, done.stderr
    found, ours = load_profile(tmp_path / "own.yaml"), load_profile(ROOT / "slurm/clusters/dev.yaml")
    assert found.partitions == ours.partitions
    assert (found.container.runtime, found.container.image_dir) == (ours.container.runtime, ours.container.image_dir)
    assert (found.run_root, found.kill_wait, found.restart_by) == (ours.run_root, ours.kill_wait, ours.restart_by)
    assert (found.gpus.request, found.gpus.devices) == (ours.gpus.request, ours.gpus.devices)
    assert found.env["GLOO_SOCKET_IFNAME"] == ours.env["GLOO_SOCKET_IFNAME"]


@pytest.mark.usefixtures("_dev_slurm")
def test_the_dev_slurm_is_asked_and_nothing_differs_from_its_profile() -> None:
    site = ask_site()
    assert (site.cluster, site.accounting, site.unanswered) == ("xgen-dev", True, ())
    assert site.default_account == "root" and {one.account for one in site.associations} == {"root", "research"}
    assert [preemption(site, part) is not None for part in site.partitions] == [False, True]
    done = xgen("cluster", "show", "dev", "--json")
    assert done.returncode == 0, done.stderr
    assert [row["key"] for row in json.loads(done.stdout)["compared"] if row["write"]] == []
