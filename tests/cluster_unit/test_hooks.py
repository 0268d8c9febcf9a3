"""SLURM's prolog, epilog and HealthCheckProgram (slurm/hooks/): what is told of a node, and what is done about it."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

TOO_MUCH = 1 << 60  # bytes that no /tmp has


class Node:
    """n1, with one GPU, and SLURM that says of it what it is told to."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        self.command("nvidia-smi", 'case "$*" in *query-gpu*) echo "0, 0, Not Active, Not Active" ;; esac')
        self.state("IDLE")

    def command(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def state(self, state: str) -> None:
        update = f'printf "%s\\n" "$@" >>{self._folder}/told'
        self.command("scontrol", f'case "$*" in *show*) echo "NodeName=n1 State={state}" ;; *) {update} ;; esac')

    def runs(self, hook: str, of: Path = ROOT / "slurm/hooks", **settings: object) -> int:
        conf, known = self._folder / "hooks.conf", {"CHECKS": "disk", "TMP_WANTED": 0, "LOG": self._folder / "log"}
        conf.write_text("".join(f"{name}={shlex.quote(str(value))}\n" for name, value in (known | settings).items()))
        environment = {
            "PATH": f"{self.bin}:{os.environ['PATH']}", "SLURMD_NODENAME": "n1", "XGEN_HOOKS_CONF": str(conf),
        }  # fmt: skip
        return subprocess.run([of / hook], env=environment, timeout=60, check=False).returncode

    def lines(self, name: str) -> list[str]:
        file = self._folder / name
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.mark.parametrize("hook", ["prolog", "epilog", "health-check"])
def test_of_a_sound_node_nothing_is_told(node: Node, hook: str) -> None:
    assert node.runs(hook, ACT="drain") == 0
    assert node.lines("log") == node.lines("told") == []


def test_hooks_run_where_they_were_installed_as_the_docs_say(node: Node, tmp_path: Path) -> None:
    said = next(part for part in (ROOT / "docs/nodes.md").read_text().split("`") if part.startswith("install -Dt "))
    folder = tmp_path / "etc"
    command = said.replace("/etc/slurm/xgen-hooks", shlex.quote(str(folder)))
    subprocess.run(["bash", "-c", command], cwd=ROOT, timeout=60, check=True)
    assert node.runs("prolog", of=folder, ACT="drain", TMP_WANTED=TOO_MUCH) == 1
    assert "unhealthy: disk" in node.lines("log")[0]


@pytest.mark.parametrize("hook", ["prolog", "epilog"])
@pytest.mark.parametrize(("act", "code"), [("observe", 0), ("drain", 1)])
def test_a_node_that_is_not_fit_fails_the_hook_where_it_is_to_be_drained(
    node: Node, hook: str, act: str, code: int
) -> None:
    assert node.runs(hook, ACT=act, TMP_WANTED=TOO_MUCH) == code
    (line,) = node.lines("log")
    assert f" {hook} node n1 is unhealthy: disk: /tmp has " in line
    assert node.lines("told") == []  # SLURM drains it by itself


def test_the_health_check_drains_a_node_and_says_why(node: Node) -> None:
    assert node.runs("health-check", ACT="drain", TMP_WANTED=TOO_MUCH) == 0
    command, name, state, reason = node.lines("told")
    assert (command, name, state) == ("update", "NodeName=n1", "State=DRAIN")
    assert reason.startswith("Reason=xgen: disk: /tmp has ")


@pytest.mark.parametrize(("act", "state"), [("observe", "IDLE"), ("drain", "IDLE+DRAIN")], ids=["observed", "drained"])
def test_the_health_check_leaves_a_node_that_is_observed_or_drained_already(node: Node, act: str, state: str) -> None:
    node.state(state)
    assert node.runs("health-check", ACT=act, TMP_WANTED=TOO_MUCH) == 0
    assert (len(node.lines("log")), node.lines("told")) == (1, [])


@pytest.mark.parametrize(
    ("gpus", "said"),
    [("n[0-9]*=2 *=0", ["1 of 2 GPUs answer"]), ("g*=8 n*=1", []), ("g*=8", []), ("", [])],
    ids=["one-gone", "all-there", "of-other-nodes", "not-counted"],
)
def test_gpus_are_counted_by_the_first_pattern_that_the_node_has(node: Node, gpus: str, said: list[str]) -> None:
    node.runs("prolog", CHECKS="gpus", GPUS=gpus)
    assert [line.rpartition("gpus: ")[2] for line in node.lines("log")] == said
