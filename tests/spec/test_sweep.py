"""A sweep is one spec with many values of some keys: its points are drawn alike each time, and each is a spec."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st

from xgen.spec import Command, Job, LoadedJob, Profile, SpecError, Sweep, dump, load_job, load_resolved
from xgen.spec.points import assignments, jobs_of, settings

BASE = {
    "kind": "command", "name": "base", "command": ["run"], "resources": {"time": "5m", "gpus_per_node": 0},
    "env": {"RATE": "1"}, "lead": "10s", "container": {"mounts": []},
}  # fmt: skip


def write(folder: Path, **keys: Any) -> Path:
    (folder / "pyproject.toml").touch()
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE))
    sweep = {"kind": "sweep", "name": "many", "spec": "base.yaml", "over": {"command": [["run", "1"], ["run", "2"]]}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump({k: v for k, v in (sweep | keys).items() if v is not None}))
    return folder / "sweep.yaml"


def load(folder: Path, *overrides: str, **keys: Any) -> LoadedJob:
    return load_job(write(folder, **keys), overrides)


def swept(over: dict[str, Any], **points: Any) -> Sweep:
    raw = {"kind": "sweep", "name": "s", "resources": BASE["resources"], "spec": {"kind": "command"}, "over": over}
    return Sweep.model_validate(raw | ({"points": points} if points else {}))


def test_a_grid_has_every_value_with_every_other() -> None:
    found = assignments(swept({"a": [1, 2], "b.0": ["x", "y", "z"]}))
    assert len(found) == swept({"a": [1, 2], "b.0": ["x", "y", "z"]}).num_points == 6
    assert found[:2] == [{"a": 1, "b.0": "x"}, {"a": 1, "b.0": "y"}]
    assert settings(found[0]) == ["a=1", "b.0=x"]


@settings_of(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 30))
def test_random_points_are_within_their_bounds_and_more_of_them_keep_the_first(seed: int, few: int, more: int) -> None:
    over = {"lr": {"log_uniform": [1e-4, 1e-2]}, "wd": {"uniform": [0, 1]}, "seed": [1, 2, 3]}
    small = assignments(swept(over, random=few, seed=seed))
    large = assignments(swept(over, random=few + more, seed=seed))
    assert large[:few] == small
    assert all(1e-4 <= one["lr"] <= 1e-2 and 0 <= one["wd"] <= 1 and one["seed"] in (1, 2, 3) for one in large)


def test_log_uniform_draws_as_many_below_the_middle_decade_as_above() -> None:
    drawn = assignments(swept({"lr": {"log_uniform": [1e-4, 1e-2]}}, random=400))
    assert 0.4 < sum(one["lr"] < 1e-3 for one in drawn) / 400 < 0.6
    assert all(math.isclose(one["lr"], float(f"{one['lr']:.4g}")) for one in drawn)  # what is printed is what runs


def test_what_every_job_has_comes_from_the_spec_unless_the_sweep_says_it(tmp_path: Path) -> None:
    loaded = load(tmp_path, resources={"time": "7m"}, restart={"max_failures": 2})
    assert isinstance(loaded.job, Sweep)
    assert (loaded.job.resources.time, loaded.job.resources.gpus_per_node) == (420, 0)
    first, second = jobs_of(loaded.job)
    assert isinstance(first, Command)
    assert isinstance(second, Command)
    assert (first.command, second.command) == (["run", "1"], ["run", "2"])
    common = set(Job.model_fields)
    assert first.model_dump(include=common) == loaded.job.model_dump(include=common)
    assert first.env == {"RATE": "1"}


def test_a_sweep_of_a_command_gives_up_after_its_first_failure_as_a_command_does(tmp_path: Path) -> None:
    assert load(tmp_path).job.restart.max_failures == 1
    loaded = load(tmp_path, restart={"by": "successor"})  # which says nothing of failures
    assert isinstance(loaded.job, Sweep)
    assert (loaded.job.restart.max_failures, loaded.job.restart.by) == (1, "successor")
    assert {one.restart.max_failures for one in jobs_of(loaded.job)} == {1}


def test_a_resolved_sweep_needs_no_other_file_and_has_the_same_points(tmp_path: Path) -> None:
    loaded = load(tmp_path, "over.command=[[a],[b],[c]]")
    assert isinstance(loaded.job, Sweep)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/spec.yaml").write_text(dump(loaded.job))
    again = load_resolved(tmp_path / "elsewhere/spec.yaml")
    assert again == loaded.job
    assert isinstance(again, Sweep)
    assert jobs_of(again) == jobs_of(loaded.job)


def test_a_path_among_the_values_starts_at_the_projects_root(tmp_path: Path) -> None:
    job = load(tmp_path, over={"data.stores.web": ["stores/a", "/b"], "seed": [1]}).job
    assert isinstance(job, Sweep)
    assert job.over["data.stores.web"].choice == [f"{tmp_path}/stores/a", "/b"]


MISTAKES = [
    ({"spec": "nothing.yaml"}, "sweep.yaml: spec: nothing.yaml is no file in"),
    ({"spec": {"kind": "sweep"}}, "spec.kind: 'sweep' cannot be swept; write one of command"),
    ({"over": None}, "over is missing: what differs between the points"),
    ({"over": {"a": []}}, "over.a.choice: [] is empty; write at least one entry"),
    ({"over": {"a": {"log_uniform": [0, 1]}}, "points": {"random": 3}}, "log_uniform: 0 has no logarithm"),
    ({"over": {"a": {"uniform": [2, 1]}}, "points": {"random": 3}}, "uniform: 2 is not below 1"),
    ({"over": {"a": {"uniform": [1, 2]}}}, "over.a: a grid has no end of it; write a list of values"),
    (
        {"over": {"command.1": {"uniform": [1, 2]}}, "restart": {"guard": True}},
        "restart.guard: a job array has no",
    ),
    ({"over": {"a": {"uniform": [1, 2], "choice": [1]}}}, "choice and uniform given"),
    ({"points": [{"a": 1}]}, "a list has all that differs"),
    ({"points": {"seed": 3}}, "seed draws nothing by itself"),
    ({"metric": "accuracy"}, "best is missing: is accuracy better when it is high?"),
    ({"stop": {"at": [20, 10]}}, "at: [20, 10] are not steps in rising order"),
    ({"stop": {"at": [10], "keep": 1.5}}, "stop.keep: 1.5 is out of range"),
    ({"arrays": {}}, "unknown key; write array"),
]


@pytest.mark.parametrize(("keys", "said"), MISTAKES, ids=[said for _, said in MISTAKES])
def test_a_mistake_is_named_with_its_place_and_the_fix(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as error:
        load(tmp_path, **keys)
    assert said in str(error.value)


POINTS = [
    ({"over": {"comand": [["a"]]}}, 'point 0 (comand=["a"]): comand: unknown key; write command'),
    ({"over": {"command": [["a"], "b c"]}}, "point 1 (command=b c): command: 'b c' is text; write a list"),
    ({"over": {"command.0": [date(2026, 11, 27)]}}, 'point 0 (command.0="2026-11-27"): command[0]: '),
    ({"over": {"env.A": ["1"]}}, "or submit two sweeps; of a command vary a word: over.command.N"),
    ({"over": {"resources.nodes": [1, 2]}}, "over.resources.nodes: resources is that of the whole job array"),
    ({"over": {"array.shards": [1, 2]}}, "point 0 (array.shards=1): kind: command is job arrays itself"),
    ({"over": {"command": [["a"], ["b"], ["a"]]}}, 'point 2 (command=["a"]) is the same as point 0; remove one'),
    ({"over": {"command": [["a"]]}, "points": {"random": 2}}, "2 different points are not to be had"),
    ({"over": {"command": [["a"]]}, "stop": {"at": [1]}}, "stop.metric: is missing: by which number"),
    ({"over": {"command.first": [1]}}, "point 0 (command.first=1): command.first: 'first' is no entry"),
]


@pytest.mark.parametrize(("keys", "said"), POINTS, ids=[said for _, said in POINTS])
def test_every_point_is_checked_before_anything_is_submitted(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    from xgen.plan import check

    profile = Profile.model_validate(
        {"scheduler": "local", "run_root": "/r", "partitions": {"p": {"max_time": "1h", "default": True}}}
    )
    found = check(load(tmp_path, **keys), profile)
    assert said in "\n".join(map(str, found))


def test_of_many_points_with_the_same_mistake_a_few_are_named(tmp_path: Path) -> None:
    from xgen.plan import check

    profile = Profile.model_validate(
        {"scheduler": "local", "run_root": "/r", "partitions": {"p": {"max_time": "1h", "default": True}}}
    )
    found = check(load(tmp_path, over={"nosuch": list(range(40))}), profile)
    assert len(found) == 6
    assert "35 more of 40 points are wrong" in str(found[-1])
