"""A project's bytes on the run root: what a submission over them meets, who holds them, what a cache may not forget."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import HELLO, Project, fake_slurm
from tests.cli.test_usage import make_run
from xgen.cli.budget import over_quota
from xgen.cluster.status import QueueView
from xgen.metrics.fleet.space import Held, held_by
from xgen.runs import RunDir
from xgen.runs.users import user_name
from xgen.spec.units import format_bytes

ME = user_name(os.getuid())
MB = 2**20
PROJECTS = """\
projects:
  nlp: {quota: {size: 10MB, over: refuse}}
  speech: {quota: {size: 10MB}}
  vision: {}
"""


@pytest.fixture
def env(project: Project, tmp_path: Path) -> dict[str, str]:
    """A cluster on which nlp holds 12 MB of 10 in two runs that have ended, and speech 6."""
    with (project.path / "slurm/clusters/batch.yaml").open("a") as file:
        file.write(PROJECTS)
    for name, of, size in (("one-aaaaaa", "nlp", 8), ("two-bbbbbb", "nlp", 4), ("old-cccccc", "speech", 6)):
        run = make_run(project, name, "slurm", 1, 1, project=of)
        keep(run, "step-10", size)
    return fake_slurm(tmp_path, "echo Submitted batch job 77") | {"XDG_CACHE_HOME": str(tmp_path / "cache")}


def keep(run: RunDir, name: str, megabytes: int) -> Path:
    """Bytes of a run in a checkpoint's place."""
    folder = run.path / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / "shard").write_bytes(os.urandom(megabytes * MB))
    return folder / "shard"


def spec_of(project: Project, name: str) -> str:
    (project.path / f"{name}.yaml").write_text(yaml.safe_dump(yaml.safe_load(HELLO) | {"project": name}))
    return f"{name}.yaml"


def listed(project: Project, env: dict[str, str]) -> dict[str, Any]:
    done = project.xgen("cluster", "projects", "batch", "--json", env=env)
    assert done.returncode == 0, done.stderr
    return {one["project"]: one["bytes"] for one in json.loads(done.stdout)["projects"]}


def test_a_project_that_refuses_names_what_is_held_and_by_whom(project: Project, env: dict[str, str]) -> None:
    done = project.xgen("submit", spec_of(project, "nlp"), "--cluster", "batch", env=env)
    assert done.returncode == 2
    held = format_bytes(listed(project, env)["nlp"])
    said = f"'nlp' holds {held} of 10MB ({ME} {held}), and this adds to it"
    assert done.stderr == (
        f"nlp.yaml: project: {said}; remove what has ended by xgen runs clean, or write --over-budget\n"
    )
    anyway = project.xgen("submit", "nlp.yaml", "--cluster", "batch", "--over-budget", "--json", env=env)
    assert (anyway.returncode, json.loads(anyway.stdout)["warnings"]) == (0, [said])


def test_what_has_room_is_not_spoken_of_and_the_checkpoints_of_a_training_count_before_they_are_there(
    project: Project, env: dict[str, str]
) -> None:
    done = project.xgen("submit", spec_of(project, "speech"), "--cluster", "batch", "--dry-run", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    done = project.xgen("submit", "train.yaml", "--cluster", "batch", "--dry-run", "--set", "project=speech", env=env)
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if "holds" in line]
    held = format_bytes(listed(project, env)["speech"])
    assert said.startswith(f"warning: 'speech' holds {held} of 10MB ({ME} {held}), and the checkpoints of this take ")


def test_what_is_removed_from_a_run_that_has_ended_is_free_and_what_comes_counts(
    project: Project, env: dict[str, str]
) -> None:
    before = listed(project, env)
    assert [round(before[name] / MB) for name in ("nlp", "speech")] == [12, 6]
    assert before["vision"] is None  # it has no quota, and is not measured
    assert listed(project, env) == before  # from the cache
    one = project.runs / "one-aaaaaa/checkpoints"
    (one / "step-10/shard").unlink()
    (one / "step-10").rmdir()
    assert round(listed(project, env)["nlp"] / MB) == 4
    keep(RunDir(project.runs / "one-aaaaaa"), "step-20", 2)
    assert round(listed(project, env)["nlp"] / MB) == 6
    for file in Path(env["XDG_CACHE_HOME"]).rglob("*.sqlite"):
        file.write_bytes(b"no database")
    assert round(listed(project, env)["nlp"] / MB) == 6


def test_of_a_file_that_runs_share_each_counts_its_part_whenever_it_is_shared(
    project: Project, env: dict[str, str]
) -> None:
    keep(RunDir(project.runs / "two-bbbbbb"), "step-20", 6)
    alone = listed(project, env)
    fork = project.runs / "old-cccccc/checkpoints/step-20"
    fork.mkdir()
    (fork / "shard").hardlink_to(project.runs / "two-bbbbbb/checkpoints/step-20/shard")

    def changed() -> list[float]:
        now = listed(project, env)
        return [round((now[name] - alone[name]) / MB, 1) for name in ("nlp", "speech")]

    assert changed() == [-3, 3]
    assert changed() == [-3, 3]
    (fork / "shard").unlink()
    fork.rmdir()
    assert changed() == [0, 0]


def test_what_a_shard_of_an_array_has_made_counts(project: Project, env: dict[str, str]) -> None:
    before = listed(project, env)["speech"]
    shard = project.runs / "old-cccccc/shards/tune/3"
    (shard / "checkpoints").mkdir(parents=True)
    listed(project, env)
    (shard / "checkpoints/step-10").mkdir()
    (shard / "checkpoints/step-10/shard").write_bytes(os.urandom(2 * MB))
    assert round((listed(project, env)["speech"] - before) / MB, 1) == 2


def test_what_may_not_be_read_is_said(project: Project, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a colleague's folder; who is root may read all."""
    closed = project.runs / "two-bbbbbb/checkpoints"
    scan = os.scandir

    def scandir(path: Any) -> Any:
        if str(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    spaces = held_by(project.runs, ["nlp"], lambda _: QueueView({}))
    assert spaces.unreadable == ["two-bbbbbb"]
    assert round(spaces.users["nlp"][ME] / MB) == 8
    assert "; not known: 1 run that you may not read" in over_quota(Held("nlp", MB, 2 * MB, []), 0, 1)


def test_the_table_shows_what_is_held_of_how_much(project: Project, env: dict[str, str]) -> None:
    done = project.xgen("cluster", "projects", "batch", env=env | {"COLUMNS": "140"})
    heads, *rows = (line.split() for line in done.stdout.splitlines())
    assert heads[-2:] == ["holds", "of"]
    assert [row[-2:] for row in rows[:2]] == [
        [format_bytes(listed(project, env)[name]), "10MB"] for name in ("nlp", "speech")
    ]
    assert rows[2][-3:] == ["-", "no", "limit"]
