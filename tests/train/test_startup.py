"""The parts of a start, from the first moment of the process."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT

_MARKS = """
import json, time
time.sleep(0.3)
from xgen.train import startup
startup.mark("imports")
time.sleep(0.2)
print(json.dumps(startup.mark("build")))
"""


def test_the_parts_add_up_to_the_age_of_the_process() -> None:
    began = time.monotonic()
    said = subprocess.run([sys.executable, "-c", _MARKS], cwd=ROOT, capture_output=True, check=True, timeout=60).stdout
    age = time.monotonic() - began
    parts = json.loads(said)
    assert list(parts) == ["imports", "build"]
    assert parts["build"] == pytest.approx(0.2, abs=0.15)
    assert 0.5 < sum(parts.values()) < age + 0.02  # the kernel counts in hundredths
