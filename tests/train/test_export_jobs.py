"""Exports as a job and as a command: what they write, what is refused, and what a stop leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import ROOT
from tests.train.conftest import Training
from xgen.runs import RankOutcome, Refused, RunDir, StopFlag, TaskContext
from xgen.spec import Export, load_job
from xgen.train.export import RECORD, run_export


def job_of(exported: RunDir, **keys: Any) -> Export:
    job = {"kind": "export", "name": "give", "resources": {"time": "5m"}, "run": exported.name}
    return Export.model_validate(job | keys)


def context_of(run: RunDir, world_size: int = 1) -> TaskContext:
    """Of an export's own run, beside the one that it exports."""
    own = RunDir(run.path.parent / "give-dddddd")
    return TaskContext(own, 1, "1", 0, 0, world_size, StopFlag(), None)


def test_the_job_of_the_checkout_is_one_task() -> None:
    job = load_job(ROOT / "jobs/tiny/export.yaml", ["run=tiny-bbbbbb"]).job
    assert isinstance(job, Export)
    assert (job.run, job.resources.world_size) == ("tiny-bbbbbb", 1)


def test_a_job_exports_by_name_or_path(run: RunDir, tmp_path: Path) -> None:
    for number, name in enumerate([run.name, str(run.path)]):
        out = tmp_path / f"out{number}"
        result = run_export(context_of(run), job_of(run, run=name, step=6, out=str(out)))
        assert (result.status, result.step, result.signal) == ("finished", 6, "")
        assert (out / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("keys", "world_size", "message"),
    [
        ({}, 2, r"an export is the work of one task, and these are 2; write resources: \{nodes: 1, gpus_per_node: 1\}"),
        ({"run": "other-eeeeee"}, 1, "other-eeeeee is no run directory, it has no spec.yaml; write the name of a run"),
        ({"run": "runs/nano-cccccc"}, 1, "run: runs/nano-cccccc is no name and no absolute path; write one of them"),
    ],
)
def test_a_job_that_no_try_can_help_is_refused(run: RunDir, keys: Any, world_size: int, message: str) -> None:
    with pytest.raises(Refused, match=message):
        run_export(context_of(run, world_size), job_of(run, **keys))


def test_a_stop_ends_it_between_two_tensors_and_leaves_nothing(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xgen.train import weights

    context, read = context_of(run), weights.CheckpointWeights.read

    def stopped_at_the_head(self: Any, name: str, *args: Any) -> torch.Tensor:
        if name == "norm.weight":
            context.stop.signal = "SIGUSR2"
        return read(self, name, *args)

    monkeypatch.setattr(weights.CheckpointWeights, "read", stopped_at_the_head)
    (tmp_path / "place").mkdir()
    result = run_export(context, job_of(run, out=str(tmp_path / "place" / "out")))
    assert (result.status, result.signal) == ("stopped", "SIGUSR2")
    assert list((tmp_path / "place").iterdir()) == []


def test_the_task_of_an_export_job_leaves_its_outcome(run: RunDir, training: Training, tmp_path: Path) -> None:
    training.world_size = 1
    out = tmp_path / "out"
    spec = {"kind": "export", "name": "give", "resources": {"time": "5m"}, "run": str(run.path), "out": str(out)}
    training.run.spec_file.write_text(yaml.safe_dump(spec))
    outcome: RankOutcome = training.go()[0]
    assert (outcome.status, outcome.reason, outcome.step) == ("finished", "", 8)
    training.run.spec_file.write_text(yaml.safe_dump(spec | {"step": 7}))
    outcome = training.go()[0]
    assert outcome.status == "refused"
    assert "write one of 4, 6, 8" in outcome.reason


def test_the_command_exports_here_and_says_what_it_wrote(run: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = xgen("export", f"{run.path}@6", "--out", out, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts.pop("bytes") == sum(f.stat().st_size for f in out.iterdir() if f.name != RECORD)
    assert facts == {
        "run": run.name, "step": 6, "path": str(out), "dtype": "bfloat16", "parameters": 280_736, "new": True,
    }  # fmt: skip
    again = xgen("export", f"{run.path}@6", "--out", out)
    assert (again.exit_code, again.stderr) == (0, "")
    assert again.stdout.splitlines()[0] == f"{run.name}@6  {out}  was there already, whole and the same"


@pytest.mark.parametrize(
    ("step", "options", "message"),
    [
        ("@7", [], "step: nano-cccccc has no complete checkpoint of step 7; write one of 4, 6, 8\n"),
        ("@last", [], "'last' is no step; write RUN@STEP, e.g. "),
        ("", ["--tokenizer", "/nowhere.json"], "tokenizer: /nowhere.json: does not exist; name a tokenizer.json\n"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(run: RunDir, step: str, options: list[str], message: str) -> None:
    done = xgen("export", f"{run.path}{step}", *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def xgen(*arguments: object) -> Any:
    """In this process: torchtitan is imported once."""
    from typer.testing import CliRunner

    from xgen.cli.main import app

    return CliRunner().invoke(app, [str(argument) for argument in arguments])
