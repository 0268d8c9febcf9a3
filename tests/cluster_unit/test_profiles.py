"""The profiles that come with the checkout, to copy: each loads, and a job renders with it as it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster_unit.test_render import ARCHIVE, FOLDER, SIF, SQUASHED, command
from tests.conftest import ROOT, xgen
from xgen.cluster.render import render
from xgen.images.resolve import NO_IMAGE, Image
from xgen.runs import RunDir
from xgen.spec import load_job, load_profile

CLUSTERS = ROOT / "slurm/clusters"
# What of each stands in the script of a job.
SAYS: dict[str, tuple[Image, list[str]]] = {
    "dev": (FOLDER, ["ch-run", "--gpus-per-node=4", "RESTART_BY=requeue"]),
    "local": (NO_IMAGE, ["-m xgen.cli.task"]),
    "example-h100": (SQUASHED, ["--container-image=", "--gpus-per-node=h100:4", "--partition=main"]),
    "example-apptainer": (
        SIF, ["apptainer", "--gres=gpu:a100:4", "RESTART_BY=successor", "NCCL_SOCKET_IFNAME=ib0"],
    ),
    "example-docker": (ARCHIVE, ["docker run", "--gpus-per-node=l40s:4", "NCCL_SOCKET_IFNAME=eno1"]),
    "example-gpu-box": (NO_IMAGE, ["NCCL_SOCKET_IFNAME=lo", "-m xgen.cli.task"]),
}  # fmt: skip


def test_each_profile_is_tested_here() -> None:
    assert sorted(SAYS) == sorted(path.stem for path in CLUSTERS.glob("*.yaml"))


@pytest.mark.parametrize("name", SAYS)
def test_a_job_renders_as_the_profile_says(name: str) -> None:
    image, words = SAYS[name]
    profile = load_profile(CLUSTERS / f"{name}.yaml")
    script = render(command(container={"image": "trainer"}), profile, RunDir(Path("/shared/runs/small-abc234")), image)
    assert [word for word in words if word not in script] == []


@pytest.mark.parametrize("name", ["example-h100", "example-apptainer"])
def test_the_4b_pretraining_makes_sense_there(name: str) -> None:
    done = xgen("plan", str(ROOT / "jobs/4b/pretrain.yaml"), "--cluster", name)
    assert done.returncode == 0, done.stderr
    assert load_job(ROOT / "jobs/4b/pretrain.yaml").job.name in done.stdout
