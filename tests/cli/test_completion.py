"""What a shell is offered after a Tab."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import HELLO, Project
from xgen.runs import RunDir


def offered(project: Project, words: str) -> list[str]:
    env = {"_XGEN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    xgen = Path(sys.executable).with_name("xgen")  # completion goes by the name that was called
    done = subprocess.run(
        [xgen], cwd=project.path, env=os.environ | env, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


@pytest.fixture(autouse=True)
def _runs(project: Project) -> None:
    for name in ("hello-aaaaaa", "help-bbbbbb", "train-cccccc"):
        run = RunDir(project.runs / name)
        run.create()
        run.spec_file.write_text(HELLO)


@pytest.mark.parametrize("command", ["status", "show", "why", "logs", "cancel", "compare", "export", "fork"])
def test_runs_are_completed_by_their_first_letters(project: Project, command: str) -> None:
    assert sorted(offered(project, f"xgen {command} --cluster local he")) == ["hello-aaaaaa", "help-bbbbbb"]


def test_clusters_and_commands_are_completed(project: Project) -> None:
    assert offered(project, "xgen submit --cluster loc") == ["local"]
    assert "why" in offered(project, "xgen w")


def test_what_cannot_be_read_offers_nothing(project: Project) -> None:
    assert offered(project, "xgen status --cluster nowhere he") == []
    (project.path / "slurm/clusters/local.yaml").write_text("scheduler: [")
    assert offered(project, "xgen status --cluster local he") == []
