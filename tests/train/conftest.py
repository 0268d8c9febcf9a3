"""Trainings of forked ranks, and one that nothing disturbs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.train.forked import SPEC, STEPS, Training, warm_up
from xgen.runs import RunDir

__all__ = ["SPEC", "STEPS", "Training"]


@pytest.fixture(scope="session")
def _warm() -> None:
    warm_up()


@pytest.fixture
def training(_warm: None, tmp_path: Path) -> Training:
    return Training(RunDir(tmp_path / "runs" / "nano-aaaaaa"))


@pytest.fixture(scope="session")
def undisturbed(_warm: None, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """The run that all others are compared with."""
    training = Training(RunDir(tmp_path_factory.mktemp("undisturbed") / "nano-bbbbbb"))
    assert [o.status for o in training.go()] == ["finished", "finished"]
    return training


@pytest.fixture
def run(undisturbed: Training, tmp_path: Path) -> RunDir:
    """A run with the checkpoints of steps 4, 6 and 8, of two ranks; a copy, to be changed."""
    shutil.copytree(undisturbed.run.path, tmp_path / "runs" / "nano-cccccc")
    return RunDir(tmp_path / "runs" / "nano-cccccc")
