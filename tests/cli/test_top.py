"""`xgen top`, of what real SLURMs have printed: it fits 80 columns, and asks thrice."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Project
from tests.metrics.fake_slurm import ANSWERS, DOWN, FakeSlurm
from xgen.cluster.nodes import exclude
from xgen.metrics.slurm.rows import JobRow, NodeRow
from xgen.metrics.slurm.usage import by_partition, by_user, out_of_use

# `xgen top` asks squeue twice: for all jobs, and for those of this user by name.
MINE = r'case "$*" in *,Name:*) printf "81|tiny-abc234|RUNNING|None|gpu|n1|N/A|0|\n";; *) '


@pytest.fixture
def slurm(tmp_path: Path) -> FakeSlurm:
    fake = FakeSlurm(tmp_path)
    fake.say("squeue", f"{MINE}{ANSWERS['squeue']};; esac")
    return fake


def top(project: Project, slurm: FakeSlurm, *arguments: str) -> str:
    path = f"{slurm.bin}:{os.environ['PATH']}"
    done = project.xgen("top", "--cluster", "batch", *arguments, env={"PATH": path, "COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_says_what_is_free_who_has_the_rest_and_what_is_out(project: Project, slurm: FakeSlurm) -> None:
    lines = top(project, slurm).splitlines()
    assert lines[0].split()[:4] == ["partition", "nodes", "free", "out"]
    assert max(map(len, lines)) <= 80 or "out of use" in "\n".join(lines)
    assert any(line.startswith("tiny-abc234  81") for line in lines)
    assert len(slurm.calls.read_text().splitlines()) == 3


def test_json_has_it_all(project: Project, slurm: FakeSlurm) -> None:
    found = json.loads(top(project, slurm, "--json"))
    for one in found["partitions"]:
        assert one["gpus"] == one["gpus_used"] + one["gpus_free"] + one["gpus_out"]
    assert found["jobs"][0]["name"] == "tiny-abc234"


def test_nodes_that_the_team_keeps_off_stand_below_the_rest(project: Project, slurm: FakeSlurm) -> None:
    assert "xgen nodes" not in top(project, slurm)
    exclude(project.runs, "g3", 3600, "slow NIC", time.time())
    head, line = top(project, slurm).splitlines()[-2:]
    assert head.split() == ["excluded", "until", "reason", "(xgen", "nodes)"]
    assert line.startswith("g3 ") and line.endswith(" slow NIC")
    (fact,) = json.loads(top(project, slurm, "--json"))["excluded"]
    assert (fact["node"], fact["reason"]) == ("g3", "slow NIC")


def test_what_the_controller_does_not_say_is_named_and_the_rest_is_shown(project: Project, slurm: FakeSlurm) -> None:
    slurm.say("sinfo", DOWN)
    path = f"{slurm.bin}:{os.environ['PATH']}"
    done = project.xgen("top", "--cluster", "batch", env={"PATH": path})
    assert done.returncode == 0
    assert "tiny-abc234" in done.stdout
    assert done.stderr.count("\n") == 1
    assert "not known: nodes: " in done.stderr
    assert "Unable to contact slurm controller" in done.stderr
    slurm.say("squeue", DOWN)
    done = project.xgen("top", "--cluster", "batch", env={"PATH": path})
    assert (done.returncode, done.stdout) == (3, "\n")
    assert done.stderr.count("\n") == 3


def node(name: str, state: str, used: int, reason: str = "") -> NodeRow:
    return NodeRow(
        name, "gpu", state, (4 * used, 32 - 4 * used, 0, 32), 0, 1, {"gpu": 8}, {"gpu": used}, "", None, reason
    )


def job(state: str, user: str, gpus: int, name: str = "7") -> JobRow:
    return JobRow(name, user, "", ("gpu",), state, 4, None, gpus, "None")


def test_gpus_of_nodes_that_take_no_work_are_neither_used_nor_free() -> None:
    nodes = [node("n1", "mixed", 5), node("n2", "idle", 0), node("n3", "drained", 3, "bad fan"), node("n4", "down*", 0)]
    jobs = [job("RUNNING", "ann", 5), job("PENDING", "bob", 8, "9_[0-3]"), job("PENDING", "ann", 1)]
    (use,) = by_partition(nodes, jobs)
    assert (use.nodes, use.nodes_free, use.nodes_out) == (4, 1, 2)
    assert (use.gpus, use.gpus_used, use.gpus_free, use.gpus_out) == (32, 5, 11, 16)
    assert (use.jobs_waiting, use.gpus_waited_for) == (5, 33)
    assert [(one.user, one.gpus, one.gpus_waited_for) for one in by_user(jobs)] == [("ann", 5, 1), ("bob", 0, 32)]
    assert [(one.node, one.reason) for one in out_of_use(nodes)] == [("n3", "bad fan"), ("n4", "")]
