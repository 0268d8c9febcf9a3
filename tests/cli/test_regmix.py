"""What is said of a regmix job before it runs: its cost, its mixtures, and what cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Project
from xgen.cluster.mounts import all_mounts
from xgen.runs import RunDir
from xgen.spec import load_job, load_profile

JOB: dict[str, Any] = {
    "kind": "regmix",
    "name": "mix",
    "out": "weights",
    "resources": {"partition": "gpu", "time": "10m"},
    "lead": "30s",
    "proxy": {
        "extends": "train.yaml",
        "stages": [{"name": "proxy", "tokens": "80k", "seq_len": 256, "global_batch": "1k", "lr": {"peak": 1e-3}}],
        "validation": {"store": "store"},
    },
    "num_proxies": 24,
    "array": {"shards": 6, "at_once": 4},
}
COST = "24 x 80,896 = 1,941,504 tokens, 1.62e+13 FLOP, 1.07 GPU-hours, 16m6s with 4 at once"


@pytest.fixture
def mix(project: Project) -> Project:
    (project.path / "mix.yaml").write_text(yaml.safe_dump(JOB))
    return project


def test_the_plan_says_what_all_proxies_cost_and_of_what_they_are(mix: Project) -> None:
    done = mix.xgen("plan", "mix.yaml", "--cluster", "local")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    proxies = "  proxies: 6 shards, 4 at once, each 1 nodes x 1 tasks"
    assert lines[:3] == ["mix on local", proxies, f"  proxies     {COST}; each:"]
    assert "  tokens      80,896" in lines
    assert any(line.startswith("  data        code              31.0% of the corpus, ") for line in lines)
    assert lines[-2:] == ["  fit: 1 nodes x 1 tasks", "  all: 1,941,504 tokens, 1.07 GPU-hours"]
    facts = json.loads(mix.xgen("plan", "mix.yaml", "--cluster", "local", "--json").stdout)
    assert (facts["stages"][0]["num_runs"], facts["stages"][0]["runs_at_once"]) == (24, 4)
    assert [part["name"] for part in facts["mixture"]] == ["code", "literature", "reference"]


def test_a_dry_run_prints_the_scripts_and_beside_them_the_cost(mix: Project) -> None:
    before = mix.files()
    done = mix.xgen("submit", "mix.yaml", "--cluster", "batch", "--dry-run")
    assert (done.returncode, done.stderr) == (0, f"cost: {COST}\n")
    assert "#SBATCH --array=0-5%4\n" in done.stdout
    assert "#SBATCH --dependency=afterok:JOB_OF_proxies\n" in done.stdout
    assert mix.files() == before


def test_the_container_has_the_stores_and_the_place_of_the_weights(mix: Project) -> None:
    job = load_job(mix.path / "mix.yaml").job
    profile = load_profile(mix.path / "slurm/clusters/local.yaml")
    mounts = {m.source: m.read_only for m in all_mounts(job, profile, RunDir(mix.runs / "mix-abc234"))}
    assert mounts[str(mix.path / "store")] is True
    assert mounts[str(mix.path)] is False


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("proxy.stages.0.global_batch=300", "proxy.stages[0].global_batch: 300 tokens are no whole number of seq"),
        ("proxy.data.store=gone", "proxy.data.store: {path}/gone is no token store; write `xgen data build "),
        ("proxy.validation.store=gone", "proxy.validation.store: {path}/gone is no token store; write `xgen data "),
        ("proxy.stages.0.lr.warmup=1k", "proxy.stages[0].lr.warmup: 1000 steps are more than the stage's 79;"),
        ("out=gone/weights", "out: {path}/gone is not there; make it first"),
        ("target.coed=1", "proxies: target: 'coed' is no domain of the store; write code"),
        ("tokens=1T", "proxies: regmix: all domains together may have "),
        ("resources.partition=hasty", "resources.partition: its grace of 2s is too short: to stop takes "),
        ("lead=2s", "lead: 2s is too short: to stop takes "),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_nothing_is_submitted(mix: Project, override: str, said: str) -> None:
    before = mix.files()
    done = mix.xgen("submit", "mix.yaml", "--cluster", "local", "--set", override)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said.format(path=mix.path) in line
    assert mix.files() == before
