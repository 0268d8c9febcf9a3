"""A project of its own per test: a checkout with specs, a profile of each scheduler, an empty run root."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.conftest import ROOT, xgen

PROFILE = """\
scheduler: {scheduler}
run_root: runs
gpus: {{request: {request}, flops: 12G}}
partitions:
  gpu: {{max_time: 1h, default: true}}
  preempt: {{max_time: 1h, preemptible: true, grace: 30s}}
  abrupt: {{max_time: 1h, preemptible: true}}
  hasty: {{max_time: 1h, preemptible: true, grace: 2s}}
kill_wait: 10s
"""
HELLO = """\
kind: command
name: hello
command: [echo, hi]
resources: {partition: gpu, nodes: 1, gpus_per_node: 2, time: 5m}
lead: 30s
"""
TRAIN = """\
kind: pretrain
name: train
model: tiny
data: {store: store}
resources: {partition: preempt, nodes: 2, gpus_per_node: 2, time: 10m}
lead: 30s
stages:
  - name: only
    tokens: 80k
    seq_len: 256
    global_batch: 1k
    lr: {peak: 3e-3, warmup: 10}
"""


@dataclass(frozen=True)
class Project:
    path: Path

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    def xgen(self, *arguments: str, env: dict[str, str] | None = None, timeout: float = 120) -> CompletedProcess[str]:
        return xgen(*arguments, cwd=self.path, env=env, timeout=timeout)

    def known_clusters(self) -> str:
        """As messages list them: those of this project and of the checkout."""
        folders = (self.path / "slurm/clusters", ROOT / "slurm/clusters")
        return ", ".join(sorted({file.stem for folder in folders for file in folder.glob("*.yaml")}))

    def files(self) -> set[str]:
        """Every file and folder, so that a test sees what a command left behind."""
        return {str(path.relative_to(self.path)) for path in self.path.rglob("*")}


def make_project(parent: Path) -> Project:
    folder = parent / "project"
    (folder / "slurm/clusters").mkdir(parents=True)
    (folder / "store").symlink_to(ROOT / ".cache/tiny-store")
    (folder / "pyproject.toml").touch()
    (folder / "hello.yaml").write_text(HELLO)
    (folder / "train.yaml").write_text(TRAIN)
    local = PROFILE.format(scheduler="local", request="none")
    batch = PROFILE.format(scheduler="slurm", request="gpus-per-node")
    (folder / "slurm/clusters/local.yaml").write_text(local)
    (folder / "slurm/clusters/batch.yaml").write_text(batch)
    (folder / "slurm/clusters/boxed.yaml").write_text(local + "container: {runtime: charliecloud, image_dir: images}\n")
    return Project(folder)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


def fake_slurm(folder: Path, sbatch: str) -> dict[str, str]:
    """The environment with an empty queue and with an sbatch that runs this shell text."""
    for name, text in (("squeue", "true"), ("sbatch", sbatch)):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}
