"""One pre-training, and its conversations as tokens, for all that begins from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.posttrain.tuned import Tuning, pretrained, sft_spec
from tests.train.conftest import _warm
from tests.train.forked import Training
from xgen.runs import RunDir

__all__ = ["_warm"]


@pytest.fixture(scope="session")
def base(_warm: None, tmp_path_factory: pytest.TempPathFactory) -> Training:
    return pretrained(tmp_path_factory.mktemp("tuned"))


@pytest.fixture(scope="session")
def undisturbed(base: Training) -> Tuning:
    """The fine-tuning that all others are compared with."""
    folder = base.run.path.parent
    tuning = Tuning(RunDir(folder / "whole-aaaaaa"), sft_spec(folder))
    tuning.prepare()
    assert {o.status for o in tuning.go()} == {"finished"}, tuning._log()
    return tuning


@pytest.fixture
def folder(undisturbed: Tuning) -> Path:
    """Where the runs lie."""
    return undisturbed.run.path.parent
