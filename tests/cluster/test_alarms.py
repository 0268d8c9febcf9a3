"""A sample of `python -m benchmarks.alarms`, which takes 12 minutes: real jobs, real rules, a real webhook."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.monitoring.conftest import tool

pytestmark = [pytest.mark.cluster, pytest.mark.slow]  # its time is 15 times as fast: no machine may be busy


@pytest.mark.usefixtures("_dev_slurm")
def test_a_hang_and_a_dead_exporter_are_told_of_and_a_preemption_is_not() -> None:
    tool("prometheus")
    tool("prometheus-alertmanager")
    only = [option for name in ("preemption", "hang", "exporter") for option in ("--only", name)]
    command = [sys.executable, "-m", "benchmarks.alarms", "--json", *only]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    document = json.loads(done.stdout)
    faults = {fault["name"]: fault for fault in document["faults"]}
    assert [fault["wrong"] for fault in faults.values()] == [[]] * 3
    assert faults["preemption"]["alarms"] == []
    [hang], [blind] = faults["hang"]["alarms"], faults["exporter"]["alarms"]
    assert (hang["name"], blind["name"]) == ("XgenRunStalled", "XgenExporterBlind")
    assert all(0 < alarm["fired"] < alarm["resolved"] for alarm in (hang, blind))
    assert all(all(fault["seen"].values()) and fault["seen"] for fault in faults.values())
    # The preempted run is held to its ledger by two ratios, whatever became of the other.
    assert sum(ratio["equal"] for ratio in document["ratios"]) == len(document["ratios"]) >= 2
