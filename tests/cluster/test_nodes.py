"""A broken node on a real SLURM: excluded after two deaths, given to jobs again when its time is over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import Cluster, has_event, wait_for_event, wait_until
from xgen.runs import RunDir, read_events

pytestmark = pytest.mark.cluster
# The node that the first attempt gets has a broken GPU.
WORK = """cd "$XGEN_RUN_DIR/.."; [ -e broken ] || echo "$SLURMD_NODENAME" >broken
[ "$(cat broken)" != "$SLURMD_NODENAME" ] || { echo "CUDA error: uncorrectable ECC error encountered" >&2; exit 1; }"""


def nodes(cluster: Cluster, *words: str) -> Any:
    done = cluster.xgen("nodes", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def nodes_of(run: RunDir) -> list[str | None]:
    return [event.nodes for event in read_events(run) if event.event == "started"]


def test_a_broken_node_is_excluded_after_two_deaths_and_comes_back_after_its_expiry(
    cluster: Cluster, tmp_path: Path
) -> None:
    spec = tmp_path / "job.yaml"
    spec.write_text(
        yaml.safe_dump(
            {
                "kind": "command",
                "name": "victim",
                "command": ["bash", "-c", WORK],
                "lead": "5s",
                "resources": {"nodes": 1, "gpus_per_node": 1, "time": "2m"},
                "restart": {"max_failures": 3, "by": "successor", "backoff": {"first": "0s", "most": "0s"}},
            }
        )
    )
    run = cluster.submit(spec)
    wait_for_event(run, "finished")
    first, second, third = nodes_of(run)
    broken = (cluster.run_root / "broken").read_text().strip()
    assert (first, second) == (broken, broken)
    assert third != broken
    event = has_event(run, "node_excluded", attempt=2)
    assert event is not None and event.nodes == broken
    assert f"node {broken} excluded until" in cluster.xgen("show", run.name).stdout
    [record] = nodes(cluster)
    assert (record["node"], record["deaths"], record["runs"]) == (broken, 0, [run.name])

    again = cluster.submit(spec)  # a node of its own is kept off from the start
    wait_for_event(again, "finished")
    assert len(nodes_of(again)) == 1
    assert f"#SBATCH --exclude={broken}\n" in (again.attempt_dir(1) / "sbatch.sh").read_text()

    nodes(cluster, "exclude", broken, "--for", "1s", "--reason", "ends soon")
    wait_until(lambda: not any(record["excluded"] for record in nodes(cluster)), 30, "the end of the exclusion")
    (cluster.run_root / "broken").write_text("mended\n")
    last = cluster.submit(spec)
    wait_for_event(last, "finished")
    assert nodes_of(last) == [broken]
