"""The tiny chain as people start it: every goal reached, every training preempted once. On the local executor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_the_chain_reaches_its_goals_though_every_training_is_preempted(tmp_path: Path) -> None:
    profile = (ROOT / "slurm/clusters/local.yaml").read_text().replace("run_root: runs", f"run_root: {tmp_path}/runs")
    (tmp_path / "local.yaml").write_text(profile.replace(".venv/bin/python", sys.executable))
    picture = tmp_path / "posttrain.png"
    options = ["--seeds", "0", "--cluster", str(tmp_path / "local.yaml"), "--out", str(picture)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs/tiny/posttrain.py"), *options], capture_output=True, text=True, timeout=2400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("  yes: ") == 6 and "NO: " not in done.stdout
    assert picture.is_file()
