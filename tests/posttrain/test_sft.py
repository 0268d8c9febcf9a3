"""Supervised fine-tuning: of whole weights and of adapters, in every layout, after a stop, and against transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.posttrain.tuned import STEPS, Tuning, assert_same_after_a_stop, sft_spec
from tests.train.forked import Training
from xgen.runs import RunDir, read_events


def test_it_begins_from_the_run_and_lowers_the_held_out_loss(base: Training, undisturbed: Tuning) -> None:
    found = undisturbed.validations()
    assert [line["step"] for line in found] == [0, 3, 6]
    losses = [line["domains"]["again"]["loss"] for line in found]
    assert losses[2] < losses[1] < losses[0]
    (restored,) = [e for e in read_events(undisturbed.run) if e.event == "restore_end"]
    assert restored.reason == "weights of base-aaaaaa@2"
    said = json.loads((undisturbed.run.path / "init.json").read_text())
    assert (said["run"], said["step"], said["path"]) == ("base-aaaaaa", 2, str(base.run.path))


@pytest.mark.parametrize(("world_size", "parallelism"), [(1, {}), (2, {"tp": 2}), (2, {"cp": 2})])
def test_losses_are_the_same_in_every_layout(
    undisturbed: Tuning, folder: Path, world_size: int, parallelism: dict[str, int]
) -> None:
    name = f"n{world_size}{''.join(parallelism)}-aaaaaa"
    tuning = Tuning(RunDir(folder / name), sft_spec(folder), world_size, **parallelism)
    assert {o.status for o in tuning.go()} == {"finished"}, tuning._log()
    assert tuning.rounded() == pytest.approx(undisturbed.rounded(), abs=2e-5)
    ours, theirs = tuning.validations()[-1], undisturbed.validations()[-1]
    assert ours["domains"]["again"]["tokens"] == theirs["domains"]["again"]["tokens"]
    assert ours["domains"]["again"]["loss"] == pytest.approx(theirs["domains"]["again"]["loss"], abs=1e-4)


def test_after_a_stop_it_is_the_same_bit_for_bit(undisturbed: Tuning, folder: Path) -> None:
    assert_same_after_a_stop(undisturbed, Tuning(RunDir(folder / "stopped-aaaaaa"), sft_spec(folder)))


def test_the_order_is_proven_by_an_audit(undisturbed: Tuning, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from xgen.cli.main import app

    result = CliRunner().invoke(app, ["data", "audit", str(undisturbed.run.path)])
    assert result.exit_code == 0, result.output
    assert "6 steps, 12 samples" in result.output and "3 checkpoints confirm the total" in result.output


def test_the_step_that_goes_on_is_the_one_that_was_not_finished(undisturbed: Tuning) -> None:
    from xgen.metrics.fleet.facts import read_facts
    from xgen.spec import load_resolved

    facts = read_facts(undisturbed.run)
    assert facts and [(stage.name, stage.num_steps) for stage in facts.stages] == [("prepare", 0), ("train", STEPS)]
    job = load_resolved(undisturbed.run.spec_file)
    assert facts.planned_tokens == STEPS * 512 and job.array_of(0) is None


def test_a_fork_goes_on_from_a_checkpoint_with_another_rate_and_not_with_other_batches(undisturbed: Tuning) -> None:
    from typer.testing import CliRunner

    from xgen.cli.main import app

    def fork(*keys: str) -> tuple[int, str]:
        settings = [word for key in keys for word in ("--set", key)]
        result = CliRunner().invoke(app, ["fork", f"{undisturbed.run.path}@4", "--dry-run", *settings])
        return result.exit_code, f"{result.output}{result.exception or ''}"

    code, said = fork("train.lr.peak=1e-4")
    assert code == 0 and "batch script of stage prepare" in said and "batch script of stage train" in said, said
    for key, message in {
        "train.sequences=4": "counted in its own batches",
        "train.steps=4": "4 steps, and the checkpoint has 4 behind it",
        "init=other-aaaaaa": "the checkpoint holds another",
        "lora={rank: 2, alpha: 2}": "the checkpoint holds another",
    }.items():
        code, said = fork(key)
        assert code and message in said, said


def test_a_resume_goes_on_in_the_step_that_was_not_finished(undisturbed: Tuning, tmp_path: Path) -> None:
    from xgen.cli.resume import _from_where
    from xgen.cluster.submit import next_stage
    from xgen.runs import AttemptOutcome
    from xgen.spec import load_resolved

    job, run = load_resolved(undisturbed.run.spec_file), RunDir(tmp_path / "run")
    run.create()
    assert (next_stage(run, job), _from_where(job, 0, 0, None)) == (0, "from stage prepare")
    run.attempt_dir(1).mkdir()
    told = AttemptOutcome(status="stage_finished", reason="", stage=0, time=0.0)
    (run.attempt_dir(1) / "outcome.json").write_text(told.model_dump_json())
    assert (next_stage(run, job), _from_where(job, 1, 4, None)) == (1, "from step 4")
