"""The commands behind make demo, posttrain, evaluate and pipeline find what they import: they take minutes, and no test
runs one whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("script", sorted((ROOT / "jobs/tiny").glob("*.py")), ids=lambda script: script.stem)
def test_a_demo_says_what_it_takes(script: Path) -> None:
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")
