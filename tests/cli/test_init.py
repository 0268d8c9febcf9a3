"""The weights that a post-training begins with are looked for before anything is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from xgen.cli.common import check_init
from xgen.spec import SpecError, dump, load_job, load_profile


def test_a_run_without_checkpoints_is_refused_by_submit(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "base-aaaaaa"
    run.mkdir(parents=True)
    (run / "spec.yaml").write_text(dump(load_job(ROOT / "jobs/tiny/pretrain.yaml").job))
    profile = load_profile(ROOT / "slurm/clusters/local.yaml").model_copy(update={"run_root": str(run.parent)})
    loaded = load_job(ROOT / "jobs/tiny/sft.yaml", ["init=base-aaaaaa"])
    with pytest.raises(
        SpecError, match=r"^--set: init.run: base-aaaaaa has no complete checkpoint; wait for its first"
    ):
        check_init(loaded, profile)
