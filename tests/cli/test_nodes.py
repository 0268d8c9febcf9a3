"""`xgen nodes`: the exclude list of a team, read and changed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Project
from tests.metrics.fake_slurm import DOWN, FakeSlurm


@pytest.fixture
def slurm(tmp_path: Path) -> FakeSlurm:
    fake = FakeSlurm(tmp_path)
    fake.say("sinfo", "printf '%s\\n' g1 g2 g3 g4")
    return fake


def nodes(project: Project, slurm: FakeSlurm, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = f"{slurm.bin}:{os.environ['PATH']}"
    return project.xgen("nodes", "--cluster", "batch", *arguments, env={"PATH": path, "COLUMNS": "80"})


def test_a_node_is_excluded_shown_and_cleared(project: Project, slurm: FakeSlurm) -> None:
    assert nodes(project, slurm).stdout == "no node is excluded, and none was blamed for a death\n"
    done = nodes(project, slurm, "exclude", "g3", "--for", "6h", "--reason", "slow\nNIC \x1b[31m")
    assert done.returncode == 0 and done.stdout.startswith("g3 is excluded until ")
    lines = nodes(project, slurm).stdout.splitlines()
    assert lines[0].split() == ["node", "state", "since", "until", "by"]
    assert lines[1].startswith("g3    excluded, ")
    assert lines[2] == "  slow NIC \\x1b[31m"
    assert max(map(len, lines)) <= 80
    [fact] = json.loads(nodes(project, slurm, "--json").stdout)
    assert fact["excluded"]["until"] == pytest.approx(fact["excluded"]["since"] + 6 * 3600)
    assert nodes(project, slurm, "clear", "g3").stdout.startswith("g3 is cleared")
    assert json.loads(nodes(project, slurm, "--json").stdout) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("exclude", "g9"), "g9 is no node of cluster batch; sinfo -N names them"),
        (("exclude", "g[1-3]"), "'g[1-3]' is a list; write each node by itself: scontrol show hostnames 'g[1-3]'"),
        (("exclude", "../g1"), "'../g1' is no name of a node"),
        (("exclude", "g1", "--for", "6"), "--for: '6' is not a duration; write 6s, 6m or 6h"),
        (("exclude", "g1", "--for", "0s"), "--for: 0s is no time at all; write e.g. 6h, or: xgen nodes clear NODE"),
        (("exclude", "g1", "--for", "9000000000d"), "--for: 9000000000d is longer than 3650d; write that, or less"),
        (("clear", "g1"), "g1: nothing is on record of it; xgen nodes shows what is"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    project: Project, slurm: FakeSlurm, arguments: tuple[str, ...], said: str
) -> None:
    done = nodes(project, slurm, *arguments)
    assert (done.returncode, done.stderr) == (2, said + "\n")
    assert not (project.runs / ".nodes").exists()


def test_a_time_of_the_profile_that_is_too_long_is_said_to_be_the_profile_s(project: Project, slurm: FakeSlurm) -> None:
    file = project.path / "slurm/clusters/batch.yaml"
    file.write_text(f"{file.read_text()}nodes: {{exclude_for: 4000d}}\n")
    done = nodes(project, slurm, "exclude", "g1")
    said = "nodes.exclude_for of cluster batch: 4000d is longer than 3650d; write that, or less\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_without_an_answer_of_slurm_the_list_can_be_changed_all_the_same(project: Project, slurm: FakeSlurm) -> None:
    slurm.say("sinfo", DOWN)
    done = nodes(project, slurm, "exclude", "g1")
    assert done.returncode == 0
    assert "not checked whether there is such a node" in done.stderr
