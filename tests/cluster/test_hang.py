"""A rank that hangs on the dev SLURM, on two nodes of their own watchdogs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import Cluster, outcome, wait_for_event
from tests.conftest import ROOT

pytestmark = pytest.mark.cluster
WORK = ROOT / "tests/cluster/work/hangs.py"


@pytest.mark.together
def test_ranks_of_all_nodes_are_written_down_and_the_job_is_requeued(cluster: Cluster, tmp_path: Path) -> None:
    spec = {
        "kind": "command", "name": "hangs", "command": [str(ROOT / ".venv/bin/python"), str(WORK)], "lead": "10s",
        "resources": {"nodes": 2, "gpus_per_node": 2, "time": "5m"},
        "hang": {"limit": "15s"}, "restart": {"max_failures": 2},
    }  # fmt: skip
    (tmp_path / "hangs.yaml").write_text(yaml.safe_dump(spec))
    run = cluster.submit(tmp_path / "hangs.yaml")
    hang = wait_for_event(run, "hang")
    assert (hang.attempt, (hang.reason or "")[:30]) == (1, "hung: no sign of progress for ")
    wait_for_event(run, "finished")
    assert outcome(run, 1).status == "crashed"
    folder = run.attempt_dir(1) / "hang"
    texts = [(folder / f"rank-{rank}.txt").read_text() for rank in range(4)]
    assert len({text.split()[3] for text in texts}) == 2  # SLURM's names of the nodes, though they are one machine
    assert "planted (" in texts[1]
    assert "of 4 ranks: " in (folder / "summary.txt").read_text()
