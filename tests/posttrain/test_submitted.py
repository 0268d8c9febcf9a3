"""A fine-tuning from the command line to a folder that transformers loads, on the local executor."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.cluster_unit.conftest import PROFILE, tell, wait_until
from tests.conftest import xgen
from tests.posttrain.tuned import sft_spec
from tests.train.forked import Training
from xgen.cluster import local
from xgen.runs import RunDir, read_events

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "local.yaml").write_text(PROFILE)
    yield tmp_path
    for run in map(RunDir, (tmp_path / "runs").glob("*-*")):
        local.send(run, signal.SIGTERM)
        wait_until(partial(ended_or_dead, run), partial(tell, run), 15)


def ended_or_dead(run: RunDir) -> bool:
    return not local.is_alive(run)


def ended(run: RunDir) -> bool:
    return any(event.event in ("finished", "failed", "cancelled") for event in read_events(run))


def submitted(project: Path, spec: dict[str, object]) -> RunDir:
    (project / "job.yaml").write_text(yaml.safe_dump(spec))
    said = xgen("submit", "job.yaml", "--cluster", "local.yaml", "--json", cwd=project)
    assert said.returncode == 0, said.stderr
    run = RunDir(project / "runs" / json.loads(said.stdout)["run"])
    wait_until(lambda: ended(run), lambda: tell(run), 300)
    return run


def test_it_is_prepared_trained_and_exported(base: Training, project: Path) -> None:
    spec = sft_spec(project / "records", name="chat", init=str(base.run.path))
    del spec["data"]["out"]
    spec["resources"] = {"gpus_per_node": 1, "time": "10m"}
    (project / "job.yaml").write_text(yaml.safe_dump(spec))
    plan = xgen("plan", "job.yaml", "--cluster", "local.yaml", cwd=project)
    assert plan.returncode == 0 and "train: 1 nodes x 1 tasks" in plan.stdout, plan.stderr
    dry = xgen("submit", "job.yaml", "--cluster", "local.yaml", "--dry-run", cwd=project)
    assert "# ---- batch script of stage train" in dry.stdout
    run = submitted(project, spec)
    assert [e.stage for e in read_events(run) if e.event == "stage_finished"] == ["prepare"], tell(run)
    assert read_events(run)[-1].event == "finished", tell(run)
    status = xgen("status", run.name, "--cluster", "local.yaml", cwd=project)
    assert f"began with the weights of {base.run.name}@2" in status.stdout
    assert "step 6, saved 6" in status.stdout
    listed = xgen("checkpoints", run.name, "--verify", "--cluster", "local.yaml", cwd=project)
    assert listed.returncode == 0 and "verified" in listed.stdout
    export = submitted(
        project, {"kind": "export", "name": "out", "resources": {"time": "5m"}, "run": run.name, "lead": "10s"}
    )
    assert read_events(export)[-1].event == "finished", tell(export)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = run.path / "export/step-6"
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert AutoModelForCausalLM.from_pretrained(folder).config.num_hidden_layers == 2
