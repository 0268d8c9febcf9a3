"""A service for metrics never ends a training, and its curves go on after a resume."""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from pathlib import Path

import pytest

from tests.train.forked import SPEC
from xgen.runs import RunDir
from xgen.spec import Pretrain
from xgen.train.sinks import Sinks

WANDB = """
import json, os
class Run:
    def define_metric(self, *names, **how):
        print(json.dumps(["define_metric", names, how]), file=said, flush=True)
    def log(self, values, step=None):
        print(json.dumps(["log", values, step]), file=said, flush=True)
    def finish(self):
        raise OSError("cannot finish")
def init(**settings):
    if settings["project"] == "none":
        raise ValueError("api_key not configured")
    return Run()
said = open(os.environ["WANDB_SAID"], "w")
"""


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a stand-in for the package was told."""
    (tmp_path / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("WANDB_SAID", str(tmp_path / "said"))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    return tmp_path / "said"


def _sinks(tmp_path: Path, project: str) -> Sinks:
    spec = deepcopy(SPEC) | {"sinks": {"wandb": {"project": project}}}
    run = RunDir(tmp_path / "nano-aaaaaa")
    run.create()
    return Sinks(Pretrain.model_validate(spec), run)


def test_a_service_that_does_not_start_is_given_up(
    said: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sinks = _sinks(tmp_path, "none")
    sinks.tell({"train/loss": 2.0}, 1)
    sinks.close()
    assert said.read_text() == ""
    expected = "Weights & Biases is given up, the training goes on: api_key not configured\n"
    assert capfd.readouterr().err == expected


def test_steps_that_come_again_after_a_resume_are_not_dropped(said: Path, tmp_path: Path) -> None:
    sinks = _sinks(tmp_path, "p")
    sinks.tell({"train/loss": 2.0}, 9)
    sinks.tell({"train/loss": 2.5}, 5)
    sinks.close()
    assert [json.loads(line) for line in said.read_text().splitlines()] == [
        ["define_metric", ["*"], {"step_metric": "step"}],
        ["log", {"train/loss": 2.0, "step": 9}, None],
        ["log", {"train/loss": 2.5, "step": 5}, None],
    ]
