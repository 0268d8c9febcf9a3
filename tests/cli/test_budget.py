"""A project's GPU-hours: what a submission over them meets, and `xgen cluster projects`."""

from __future__ import annotations

import grp
import json
import os
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import HELLO, Project, fake_slurm
from tests.cli.test_usage import make_run
from xgen.runs.users import user_name

ME = user_name(os.getuid())
# Of a group that is not the first one, where this person has another.
GID = 1 if os.getuid() == 0 else (os.getgroups() or [os.getgid()])[-1]
GROUP = grp.getgrgid(GID).gr_name
PROJECTS = """\
projects:
  nlp: {account: lab-nlp, budget: {gpu_hours: 20.1, per: 10d, over: refuse}}
  speech: {budget: {gpu_hours: 20.1, per: 10d}}
  vision: {group: %s}
"""
OVER = (
    "'nlp' has 0.1 left of 20.1 in 10d, and this asks for 0.167 GPU-hours by its time limit; "
    f"used are 20 ({ME} 20)"
)  # fmt: skip


@pytest.fixture
def env(project: Project, tmp_path: Path) -> dict[str, str]:
    """A cluster with projects, of which each has used 20 GPU-hours in ten days."""
    with (project.path / "slurm/clusters/batch.yaml").open("a") as file:
        file.write(PROJECTS % GROUP)
    for name, keys in (("nlp", "one-aaaaaa"), ("speech", "two-bbbbbb")):
        make_run(project, keys, "slurm", 1, 10, project=name)
    make_run(project, "old-cccccc", "slurm", 300, 10, project="nlp")
    return fake_slurm(tmp_path, "echo Submitted batch job 77")


def spec_of(project: Project, name: str, **more: str) -> str:
    lines = [HELLO, f"project: {name}", *(f"{key}: {value}" for key, value in more.items())]
    (project.path / f"{name}.yaml").write_text("\n".join(lines) + "\n")
    return f"{name}.yaml"


def test_a_project_that_refuses_names_the_numbers_and_who_used_them(project: Project, env: dict[str, str]) -> None:
    spec, before = spec_of(project, "nlp"), project.files()
    done = project.xgen("submit", spec, "--cluster", "batch", env=env)
    assert done.stderr == f"nlp.yaml: project: {OVER}; ask for less, or write --over-budget\n"
    assert done.returncode == 2
    assert {file for file in project.files() - before if "abc" in file or "hello-" in file} == set()
    done = project.xgen("submit", spec, "--cluster", "batch", "--over-budget", "--json", env=env)
    assert (done.returncode, json.loads(done.stdout)["warnings"]) == (0, [OVER])


def test_a_project_that_warns_submits_all_the_same(project: Project, env: dict[str, str]) -> None:
    done = project.xgen("submit", spec_of(project, "speech"), "--cluster", "batch", env=env)
    assert done.returncode == 0
    assert f"  warning   {OVER.replace('nlp', 'speech')}\n" in done.stderr


def test_what_fits_is_not_spoken_of_and_the_account_of_the_project_is_charged(
    project: Project, env: dict[str, str]
) -> None:
    spec = spec_of(project, "nlp")
    done = project.xgen(
        "submit", spec, "--cluster", "batch", "--dry-run", "--set", "resources.gpus_per_node=1", env=env
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "#SBATCH --account=lab-nlp\n" in done.stdout


def test_a_project_that_the_profile_does_not_list_is_a_mistake(project: Project, env: dict[str, str]) -> None:
    done = project.xgen("submit", spec_of(project, "lab-nlp"), "--cluster", "batch", "--dry-run", env=env)
    assert done.returncode == 2
    assert done.stderr.startswith("lab-nlp.yaml: project: 'lab-nlp' is not in the cluster profile; ")


def test_projects_are_listed_with_what_they_have_left(project: Project, env: dict[str, str]) -> None:
    done = project.xgen("cluster", "projects", "batch", env=env | {"COLUMNS": "120"})
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row if row[0] == "project" else row[:-3] for row in rows] == [  # test_quota.py has the bytes
        ["project", "account", "group", "used", "limit", "left", "in", "over", "mostly", "by", "holds", "of"],
        ["nlp", "lab-nlp", "-", "20", "20.1", "0.1", "10d", "refuse", ME, "20"],
        ["speech", "speech", "-", "20", "20.1", "0.1", "10d", "warn", ME, "20"],
        ["vision", "vision", GROUP, "0", "no", "limit", "-", "30d", "-", "-"],
    ]
    document = json.loads(project.xgen("cluster", "projects", "batch", "--json", env=env).stdout)
    first = document["projects"][0]
    assert (first["project"], first["account"], first["over"], first["per"]) == ("nlp", "lab-nlp", "refuse", 864000)
    assert first["users"] == [[ME, pytest.approx(20, rel=1e-3)]]
    assert first["left"] == pytest.approx(0.1, rel=0.1)


def test_a_run_directory_is_its_group_s(project: Project, env: dict[str, str]) -> None:
    """Also where the umask lets the group only read; secrets stay their owner's."""
    spec = spec_of(project, "vision", secrets="{TOKEN: {env: MY_TOKEN}}")
    secret = {"MY_TOKEN": "not told to anybody"}
    done = project.xgen("submit", spec, "--cluster", "batch", "--id", "abc234", env=env | secret)
    assert (done.returncode, done.stderr) == (0, "")
    run = project.runs / "hello-abc234"
    for folder in (run, *(path for path in run.rglob("*") if path.is_dir() and not path.is_symlink())):
        assert folder.stat().st_gid == GID
        assert stat.S_IMODE(folder.stat().st_mode) & 0o2070 == 0o2070, folder
    assert stat.S_IMODE((run / "spec.yaml").stat().st_mode) & 0o060 == 0o060
    assert stat.S_IMODE((run / ".secrets").stat().st_mode) == 0o600
