"""Pipelines as they are written: references, order, and mistakes that name the fix."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.conftest import PIPELINES, ROOT
from xgen.spec import Command, Sft, SpecError
from xgen.spec.pipeline_load import LoadedStep, is_pipeline, load_pipeline, resolve
from xgen.spec.schema import pipeline_schema

JOB = {"kind": "command", "name": "x", "command": ["true"], "resources": {"nodes": 1, "time": "5m"}, "lead": "10s"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "job.yaml").write_text(yaml.dump(JOB))
    return tmp_path


def write(project: Path, steps: object, name: str = "p") -> Path:
    file = project / "pipeline.yaml"
    file.write_text(yaml.dump({"kind": "pipeline", "name": name, "steps": steps}, sort_keys=False))
    return file


def steps_of(file: Path, *overrides: str) -> dict[str, LoadedStep]:
    found = load_pipeline(file, overrides)
    runs = {name: f"{found.pipeline.name}-{name}-aaaaaa" for name in found.pipeline.order}
    return {step.name: step for step in resolve(found, Path("/runs"), runs)}


def said(file: Path, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        steps_of(file, *overrides)
    return str(caught.value)


def test_a_value_of_another_step_is_filled_in_and_waited_for(project: Path) -> None:
    steps = steps_of(write(project, {
        "use": {"spec": "job.yaml", "set": {"command": ["cat", "${make.path}/out", "$${HOME}"]}},
        "make": {"spec": "job.yaml", "set": {"env": {"HERE": "${self.path}"}}},
    }))  # fmt: skip
    assert list(steps) == ["make", "use"]
    use, make = steps["use"].loaded.job, steps["make"].loaded.job
    assert isinstance(use, Command) and isinstance(make, Command)
    assert use.command == ["cat", "/runs/p-make-aaaaaa/out", "${HOME}"]
    assert use.name == "p-use"
    assert make.env == {"HERE": "/runs/p-make-aaaaaa"}
    assert steps["use"].needs == {"make": "ok"}


def test_after_any_is_kept_beside_a_reference(project: Path) -> None:
    file = write(project, {
        "a": {"spec": "job.yaml"},
        "b": {"spec": "job.yaml", "after": {"a": "any"}, "set": {"env.A": "${a.run}"}},
        "c": {"spec": "job.yaml", "after": ["a", "b"]},
    })  # fmt: skip
    assert is_pipeline(file)
    steps = steps_of(file)
    assert steps["b"].needs == {"a": "any"}
    assert steps["c"].needs == {"a": "ok", "b": "ok"}


def test_settings_are_of_a_step_or_of_the_pipeline(project: Path) -> None:
    file = write(project, {"a": {"spec": "job.yaml", "set": {"resources.nodes": 2}}})
    steps = steps_of(file, "a.resources.nodes=3", "name=q")
    assert steps["a"].loaded.job.resources.nodes == 3
    assert steps["a"].run == "q-a-aaaaaa"
    assert "'b' is neither a step nor a key of a pipeline" in said(file, "b.resources.nodes=3")
    assert "--set: a.command: '{' is not YAML" in said(file, "a.command={")
    assert "--set: a.command: is not KEY=VALUE" in said(file, "a.command")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"a": {"spec": "job.yaml", "after": "b"}, "b": {"spec": "job.yaml", "after": "a"}},
         "steps: a waits for b waits for a: none could begin; take one of these out"),
        ({"a": {"spec": "job.yaml", "after": "a"}}, "a waits for a"),
        ({"make": {"spec": "job.yaml"}, "b": {"spec": "job.yaml", "after": "mak"}},
         "steps.b: 'mak' is no step; write make"),
        ({"a": {"spec": "job.yaml"}, "b": {"spec": "job.yaml", "set": {"env.A": "${a.out}"}}},
         "steps.b.set: ${a.out}: step a has no value out; it has run, path"),
        ({"a": {"spec": "job.yaml", "set": {"env.A": "${a}"}}}, "${a} names no value of a step; write ${STEP.VALUE}"),
        ({"a": {"spec": "job.yaml", "set": {"env.A": "${self.out}"}}}, "a step knows of itself no more than run, path"),
        ({"a": {"spec": "no.yaml"}}, "no such file"),
        ({"A": {"spec": "job.yaml"}}, "steps.A is no name of a step"),
        ({"a" * 33: {"spec": "job.yaml"}}, "is no name of a step; write a-z, 0-9 and '-', 32 at most"),
        ({"a": {"spec": "job.yaml", "set": {"resources.nods": 1}}}, "set.resources.nods: unknown key; write nodes"),
        ({"a": {"spec": "pipeline.yaml"}}, "'pipeline' is no kind of work; name the spec of one of its steps"),
        ({}, "write at least one"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_fix(project: Path, steps: object, message: str) -> None:
    assert message in said(write(project, steps))


def test_a_reference_without_quotes_in_a_flow_is_explained(project: Path) -> None:
    file = write(project, {"a": {"spec": "job.yaml"}})
    file.write_text(file.read_text() + "  b: {spec: job.yaml, set: {env.A: ${a.path}}}\n")
    assert 'put quotes around "${STEP.VALUE}"' in said(file)


def test_a_name_that_is_too_long_for_a_run_says_by_how_much(project: Path) -> None:
    file = write(project, {"b" * 30: {"spec": "job.yaml"}}, name="a" * 30)
    assert "which is 13 characters too long" in said(file)


def test_two_steps_that_write_one_folder_are_refused(project: Path) -> None:
    export = {"kind": "export", "name": "e", "run": "r-aaaaaa", "out": "/there", "resources": JOB["resources"]}
    (project / "export.yaml").write_text(yaml.dump(export))
    file = write(project, {"a": {"spec": "export.yaml"}, "b": {"spec": "export.yaml", "set": {"out": "/there/b"}}})
    assert "steps.b.set.out: /there/b is written by step a too; write another, e.g. ${self.path}/b" in said(file)


def test_a_step_that_writes_between_two_folders_of_another_is_refused(project: Path) -> None:
    export = {"kind": "export", "name": "e", "run": "r-aaaaaa", "resources": JOB["resources"]}
    (project / "export.yaml").write_text(yaml.dump(export))
    curate = {"spec": str(ROOT / "jobs/tiny/curate.yaml"), "set": {"out": "/there", "work": "/there/a"}}
    file = write(project, {"a": curate, "b": {"spec": "export.yaml", "set": {"out": "/there/b"}}})
    assert "steps.b.set.out: /there/b is written by step a too" in said(file)


def test_a_date_among_the_keys_is_text_as_it_stands(project: Path) -> None:
    file = project / "pipeline.yaml"
    file.write_text("{kind: pipeline, name: p, steps: {a: {spec: job.yaml, set: {env.DAY: 2026-11-27}}}}")
    assert steps_of(file)["a"].loaded.job.env == {"DAY": "2026-11-27"}


def test_a_long_chain_is_put_in_order(project: Path) -> None:
    chain = {f"s{n}": {"spec": "job.yaml", "after": f"s{n + 1}"} for n in range(500)}
    found = load_pipeline(write(project, {**chain, "s500": {"spec": "job.yaml"}}))
    assert found.pipeline.order[0] == "s500" and found.pipeline.order[-1] == "s0"


@pytest.mark.parametrize("file", PIPELINES, ids=lambda p: p.parent.name)
def test_every_shipped_pipeline_fits_the_schema(file: Path) -> None:
    raw = yaml.safe_load(file.read_text())
    validator = jsonschema.Draft202012Validator(pipeline_schema())
    assert list(validator.iter_errors(raw)) == []
    assert list(validator.iter_errors(raw | {"stepps": {}}))


@pytest.mark.parametrize("size", ["4b", "9b"])
def test_the_pipelines_of_the_models_hand_weights_from_step_to_step(size: str) -> None:
    steps = steps_of(ROOT / "jobs" / size / "pipeline.yaml")
    assert {name: dict(step.needs) for name, step in steps.items()} == {
        "pretrain": {}, "sft": {"pretrain": "ok"}, "dpo": {"sft": "ok"}, "rl": {"dpo": "ok"}, "evaluate": {"rl": "ok"},
    }  # fmt: skip
    sft = steps["sft"].loaded.job
    assert isinstance(sft, Sft) and sft.init.run == f"xgen-{size}-pretrain-aaaaaa"
