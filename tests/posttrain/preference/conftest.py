"""A run that nothing disturbs, and what it starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.posttrain.preference.planted import PreferenceRun, spec_of, write_inputs
from tests.train.forked import warm_up


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    warm_up()
    folder = tmp_path_factory.mktemp("pairs")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="session")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> PreferenceRun:
    run = PreferenceRun(tmp_path_factory.mktemp("undisturbed"), spec_of(inputs))
    run.all_steps()
    return run


@pytest.fixture(scope="session")
def frozen(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> PreferenceRun:
    """The same with the other reference."""
    run = PreferenceRun(tmp_path_factory.mktemp("frozen"), spec_of(inputs, reference="frozen"))
    run.all_steps()
    return run
