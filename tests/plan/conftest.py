"""The profile of a cluster of H100s, and what is said of the real specs on it."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT
from xgen.plan import check
from xgen.spec import Profile, load_job, load_profile


@pytest.fixture(scope="session")
def profile() -> Profile:
    return load_profile(ROOT / "slurm/clusters/example-h100.yaml")


def problems(profile: Profile, *overrides: str, memory: str | None = "80GB") -> list[str]:
    """Of the 9B on GPUs of that memory; None: of any."""
    gpus = profile.gpus.model_validate(profile.gpus.model_dump() | {"memory": memory})
    profile = profile.model_copy(update={"gpus": gpus})
    found = check(load_job(ROOT / "jobs/9b/pretrain.yaml", overrides), profile, stores=False)
    return [f"{problem.key}: {problem.message}" for problem in found]


def problems_at(stage: int, found: list[str]) -> list[str]:
    return [one for one in found if one.startswith(f"stages[{stage}]")]
