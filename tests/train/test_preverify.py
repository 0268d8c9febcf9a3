"""Verifying ahead says what verifying later would say, or nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from xgen.runs import RunDir
from xgen.train import preverify
from xgen.train.manifest import FileEntry, Manifest, describe


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "nano-aaaaaa")
    run.create()
    for step in (2, 4):
        folder = run.checkpoints_dir / f"step-{step}"
        folder.mkdir()
        write_manifest(folder, [describe_new(folder / f"shard-{n}") for n in range(4)])
    return run


def describe_new(path: Path) -> FileEntry:
    path.write_bytes(path.name.encode() * 1000)
    return describe(path)


def write_manifest(folder: Path, files: list[FileEntry], tokens: int = 1) -> None:
    step = int(folder.name.partition("-")[2])
    Manifest(
        step=step, tokens=tokens, next_sample=0, world_size=2, data="", torch="", torchtitan="", files=tuple(files)
    ).write(folder)


def test_each_rank_verifies_its_share_of_the_newest(run: RunDir) -> None:
    newest = run.checkpoints_dir / "step-4"
    (newest / "shard-1").write_bytes(b"")
    ahead = [preverify.start(run, rank, 2) for rank in (0, 1)]
    faults = [verified.fault(newest, rank, 2) for rank, verified in enumerate(ahead) if verified]
    assert faults == ["", "shard-1: truncated: 0 of 7000 bytes"]
    assert preverify.started() is ahead[1]


def test_answer_about_another_checkpoint_is_none(run: RunDir) -> None:
    newest = run.checkpoints_dir / "step-4"
    ahead = preverify.start(run, 0, 2)
    assert ahead
    assert ahead.fault(run.checkpoints_dir / "step-2", 0, 2) is None
    assert ahead.fault(newest, 0, 1) is None  # another share
    assert ahead.fault(newest, 0, 2) == ""
    write_manifest(newest, list(Manifest.read(newest).files), tokens=2)
    assert ahead.fault(newest, 0, 2) is None


def test_run_without_checkpoint_has_nothing_to_verify(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "nano-aaaaaa")
    run.create()
    assert preverify.start(run, 0, 1) is None
    assert preverify.started() is None


def test_needs_no_torch() -> None:
    code = "import sys, xgen.train.preverify; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
