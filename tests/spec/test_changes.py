"""Which keys a resume may change, which only a fork."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import TRAIN
from xgen.spec import load_job
from xgen.spec.changes import changes, is_data_order, is_topology, may_resume, show_changes


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "train.yaml"
    file.write_text(TRAIN + "env: {A: x}\n")
    return file


def changed(spec: Path, *settings: str) -> list[str]:
    return list(changes(load_job(spec).job, load_job(spec, settings).job))


@pytest.mark.parametrize(
    ("setting", "key", "resumable", "topology", "data"),
    [
        ("resources.nodes=1", "resources.nodes", True, True, False),
        ("resources.time=5m", "resources.time", True, False, False),
        ("stages.0.parallelism={fsdp: 4}", "stages[0].parallelism.fsdp", True, True, False),
        ("stages.0.micro_batch=2", "stages[0].micro_batch", True, False, False),
        ("stages.0.resources.time=5m", "stages[0].resources.time", True, False, False),
        ("stages.0.resources={nodes: 1}", "stages[0].resources.nodes", True, True, False),
        ("stages.0.activation_checkpointing=full", "stages[0].activation_checkpointing", True, False, False),
        ("stages.0.compile=true", "stages[0].compile", True, False, False),
        ("checkpoint.every=7", "checkpoint.every", True, False, False),
        ("restart.max_failures=9", "restart.max_failures", True, False, False),
        ("lead=31s", "lead", True, False, False),
        ("data.workers=5", "data.workers", True, False, False),
        ("data.prefetch=9", "data.prefetch", True, False, False),
        ("container.image=other", "container.image", True, False, False),
        ("env.B=1", "env.B", True, False, False),
        ("container.mounts=[{source: /x}]", "container.mounts[0].read_only", True, False, False),
        ("env={}", "env.A", True, False, False),
        ("data.store=elsewhere", "data.store", False, False, True),
        ("data.packing=none", "data.packing", False, False, True),
        ("seed=3", "seed", False, False, True),
        ("stages.0.seq_len=128", "stages[0].seq_len", False, False, True),
        ("stages.0.lr.peak=1e-4", "stages[0].lr.peak", False, False, False),
        ("stages.0.rope_theta=1e6", "stages[0].rope_theta", False, False, False),
        ("stages.0.global_batch=2k", "stages[0].global_batch", False, False, False),
        ("stages.0.tokens=90k", "stages[0].tokens", False, False, False),
        ("deterministic=true", "deterministic", False, False, False),
        ("project=me", "project", False, False, False),
    ],
)  # fmt: skip
def test_what_a_key_means(spec: Path, setting: str, key: str, resumable: bool, topology: bool, data: bool) -> None:
    assert changed(spec, setting)[0] == key
    assert len(changed(spec, setting)) == 1 or "stages" not in setting
    assert (may_resume(key), is_topology(key), is_data_order(key)) == (resumable, topology, data)


def test_the_same_value_again_is_no_change(spec: Path) -> None:
    assert changed(spec, "lead=30s", "stages.0.parallelism.fsdp=0", "resources.nodes=2") == []


def test_a_change_reads_as_it_would_be_written(spec: Path) -> None:
    new = load_job(spec, ["lead=1h30m", "resources.nodes=1", "env={}", "project=me"]).job
    assert show_changes(changes(load_job(spec).job, new)) == "env.A=null, lead=1h30m, project=me, resources.nodes=1"
