"""A diamond on the dev SLURM: a submission that is killed and taken up, a branch that fails and is mended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import Cluster, has_event, wait_until
from tests.conftest import ROOT
from xgen.runs import RunDir, read_events

pytestmark = pytest.mark.cluster

# Dies as by kill -9, once two steps are in the queue.
_KILLED = """
import os, sys
from xgen.cluster import pipeline_submit
whole, number = pipeline_submit.submit_new, 0
def submit_new(*arguments, **options):
    global number
    number += 1
    if number > 2:
        os._exit(9)
    return whole(*arguments, **options)
pipeline_submit.submit_new = submit_new
sys.argv = ["xgen", *sys.argv[1:]]
from xgen.cli.main import main
main()
"""


def steps_of(cluster: Cluster, name: str) -> dict[str, dict[str, str]]:
    done = cluster.xgen("status", name, "--json")
    assert done.returncode == 0, done.stderr
    return {step["step"]: step for step in json.loads(done.stdout)["steps"]}


@pytest.mark.together
def test_a_diamond_survives_a_killed_submission_and_a_failing_branch(cluster: Cluster, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    (tmp_path / "pyproject.toml").touch()
    job = {"kind": "command", "name": "x", "command": ["true"], "lead": "5s", "container": {"image": "xgen-cpu"},
           "resources": {"partition": "gpu", "gpus_per_node": 0, "memory": "200MB", "time": "5m"}}  # fmt: skip
    (tmp_path / "job.yaml").write_text(yaml.dump(job))
    commands = {
        "a": ["true"],
        "b": ["test", "-d", "${a.path}"],
        "c": ["sh", "-c", f"test -d ${{a.path}} && test -e {mended}"],
        "d": ["echo", "${b.run}", "${c.run}"],
    }
    steps = {name: {"spec": "job.yaml", "set": {"command": words}} for name, words in commands.items()}
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.dump({"kind": "pipeline", "name": "diamond", "steps": steps}, sort_keys=False))

    options = ["submit", str(file), "--id", "kkkkkk", "--runtime", "none", "--cluster", str(cluster.profile)]
    killed = subprocess.run([sys.executable, "-c", _KILLED, *options], cwd=ROOT, timeout=120, check=False)
    assert killed.returncode == 9
    name = "diamond-kkkkkk"
    resumed = cluster.xgen("resume", name, "--json")
    assert resumed.returncode == 0, resumed.stderr
    actions = {step["step"]: step["action"] for step in json.loads(resumed.stdout)["steps"]}
    assert {actions["a"], actions["b"]} <= {"wait", "reuse"}
    assert (actions["c"], actions["d"]) == ("submit", "submit")

    wait_until(lambda: steps_of(cluster, name)["d"]["state"] == "blocked", 60, "d is blocked by c")
    assert [steps_of(cluster, name)[step]["state"] for step in "abc"] == ["finished", "finished", "failed"]
    mended.touch()
    assert cluster.xgen("resume", name).returncode == 0
    last = RunDir(cluster.run_root / "diamond-d-kkkkkk")
    wait_until(lambda: has_event(last, "finished"), 60, "d has finished")
    for step, attempts in (("a", 1), ("b", 1), ("c", 2), ("d", 1)):
        run = RunDir(cluster.run_root / f"diamond-{step}-kkkkkk")
        assert sum(event.event == "started" for event in read_events(run)) == attempts, step
