"""What `xgen exporter` serves of runs is what is promised to the dashboards, and documented."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.metrics.fake_slurm import FakeSlurm, slurm
from tests.metrics.fleet_runs import COMMAND, PRETRAIN, FleetRun, fleet, polled, root, says
from tests.monitoring.conftest import MONITORING
from tests.monitoring.known import promised

__all__ = ["root", "slurm"]

OURS = ("xgen_run_", "xgen_eval_", "xgen_files")
SCORES = {"ruler/vt/4096": 0.5, "ruler/effective_length/0": 4096.0, "perplexity/books/65536": 2.1}


@pytest.fixture
def exported(root: Path, slurm: FakeSlurm) -> dict[str, set[str]]:
    """Names and labels, of a run root in which everything has happened."""
    training = FleetRun(root, "tiny-k3f9ab", PRETRAIN, "81")
    end = training.trained(time.time() - 500, 20)
    training.told(end + 1, "checkpoint_begin", step=20)
    training.told(end + 2, "checkpoint_durable", step=20)
    array = FleetRun(root, "hello-abc234", COMMAND | {"array": {"shards": 5}}, "82")
    array.told(time.time() - 100, "started")
    array.told(time.time() - 50, "evaluated", writer="evaluation", step=20, checkpoint="tiny-k3f9ab@20", scores=SCORES)
    found: dict[str, set[str]] = {}
    for name, labels in polled(fleet(root, says(slurm, "81 RUNNING", "82_1 RUNNING"))):
        found.setdefault(name, set()).update(key for key, _ in labels)
    return found


def test_what_is_promised_of_runs_is_exported_with_these_labels(exported: dict[str, set[str]]) -> None:
    of_runs = {n: of - {"job", "instance"} for n, of in promised().items() if n.startswith(OURS)}
    assert exported == of_runs


def test_every_metric_of_runs_is_documented_with_its_labels(exported: dict[str, set[str]]) -> None:
    docs = (MONITORING.parent / "docs" / "monitoring.md").read_text()
    rows = {row.split("`")[1] for row in docs.splitlines() if row.startswith("| `xgen_")}
    written = {row.partition("{")[0]: set(filter(None, row.partition("{")[2].rstrip("}").split(","))) for row in rows}
    assert {name: written.get(name) for name in exported} == exported
