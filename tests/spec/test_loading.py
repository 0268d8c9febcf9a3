"""From files and `--set` to a spec: composition, origins, paths, and what is said of a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT, SPECS
from xgen.spec import (
    Command,
    Pretrain,
    SpecError,
    dump,
    find_profile,
    load_job,
    load_profile,
    load_resolved,
    project_root,
)
from xgen.spec.layers import parse_key, places, show_key

HELLO = """\
kind: command
name: hello
command: [echo, hi]
resources: {nodes: 1, time: 5m}
"""
TINY = ROOT / "jobs/tiny/pretrain.yaml"


def write(folder: Path, **files: str) -> Path:
    """Write NAME.yaml files; returns the folder, which is a project of its own."""
    (folder / "pyproject.toml").touch()
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_job(path, overrides)
    return [str(problem) for problem in caught.value.problems]


def test_a_spec_adds_to_what_it_extends_and_replaces_single_keys(tmp_path: Path) -> None:
    write(
        tmp_path,
        base=HELLO + "env: {A: base, B: base}\n",
        job="extends: base.yaml\nname: child\ncommand: [ls]\nresources: {nodes: 3}\nenv: {B: job}\n",
    )
    job = load_job(tmp_path / "job.yaml").job
    assert isinstance(job, Command)
    assert (job.name, job.command, job.resources.nodes, job.resources.time) == ("child", ["ls"], 3, 300)
    assert job.env == {"A": "base", "B": "job"}


def test_extends_goes_through_several_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    write(tmp_path, job="extends: shared/mid.yaml\nname: top\n")
    (tmp_path / "shared/mid.yaml").write_text("extends: low.yaml\nlead: 10s\n")
    (tmp_path / "shared/low.yaml").write_text(HELLO + "lead: 99s\n")
    job = load_job(tmp_path / "job.yaml").job
    assert (job.name, job.lead) == ("top", 10)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"job": "extends: job.yaml\n"}, "{at}/job.yaml: extends: job.yaml extends this file again"),
        (
            {"job": "extends: a.yaml\n", "a": "extends: b.yaml\n", "b": "extends: a.yaml\n"},
            "{at}/b.yaml: extends: a.yaml extends this file again",
        ),
        ({"job": "extends: no.yaml\n"}, "{at}/job.yaml: extends: no.yaml is no file beside job.yaml"),
        ({"job": "- a\n"}, "{at}/job.yaml: is not a mapping; write keys and values, e.g. kind: pretrain"),
        ({"job": ""}, "{at}/job.yaml: is not a mapping"),
        ({"job": "kind: command\nname: [a\n"}, "{at}/job.yaml: line 3: is not YAML"),
        ({"job": "kind: command\n\tname: a\n"}, "{at}/job.yaml: line 2: is not YAML"),
        ({"job": "kind: command\nenv: !!python/object:os.x {}\n"}, "{at}/job.yaml: line 2: is not YAML"),
        ({"job": "kind: command\x00\n"}, "{at}/job.yaml: is not YAML"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(tmp_path: Path, files: dict[str, str], said: str) -> None:
    write(tmp_path, **files)
    (problem,) = problems(tmp_path / "job.yaml")
    assert problem.startswith(said.format(at=tmp_path))


def test_a_key_that_is_written_twice_is_a_mistake(tmp_path: Path) -> None:
    write(tmp_path, job=HELLO + "lead: 5m\nlead: 6m\n")
    (problem,) = problems(tmp_path / "job.yaml")
    assert problem.startswith(f"{tmp_path}/job.yaml: line 6: ")


@pytest.mark.parametrize(
    "change", ["resources.nodes=true", "resources.time=0s", "stages.0.lr.peak=.inf", "stages.0.rope_theta=.inf"]
)
def test_values_that_cannot_be_meant_are_refused(change: str) -> None:
    assert problems(TINY, change)


def test_a_missing_file_a_folder_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    assert problems(tmp_path / "no.yaml") == [f"{tmp_path}/no.yaml: no such file"]
    assert problems(tmp_path)[0].startswith(f"{tmp_path}: cannot be read: ")
    (tmp_path / "raw.yaml").write_bytes(b"name: \xff\n")
    assert problems(tmp_path / "raw.yaml")[0].startswith(f"{tmp_path}/raw.yaml: cannot be read: ")


@pytest.mark.parametrize("key", ["stages.0.lr.peak", "stages[0].lr.peak"])
def test_set_reaches_into_lists(key: str) -> None:
    job = load_job(TINY, [f"{key}=1e-4"]).job
    assert isinstance(job, Pretrain)
    assert job.stages[0].lr.peak == 1e-4
    assert job.stages[0].lr.warmup == 10


def test_set_makes_keys_that_were_not_there(tmp_path: Path) -> None:
    write(tmp_path, job=HELLO)
    changes = ["env.GREETING=hello, you", "restart.max_failures=7", 'command=["a", "b=c"]', "resources.memory=2GB"]
    job = load_job(tmp_path / "job.yaml", changes).job
    assert isinstance(job, Command)
    assert job.env == {"GREETING": "hello, you"}
    assert (job.restart.max_failures, job.command, job.resources.memory) == (7, ["a", "b=c"], 2 * 2**30)


def test_a_command_that_says_how_it_restarts_still_gives_up_after_its_first_failure(tmp_path: Path) -> None:
    write(tmp_path, job=HELLO)
    job = load_job(tmp_path / "job.yaml", ["restart.by=successor"]).job
    assert (job.restart.max_failures, job.restart.by) == (1, "successor")
    (tmp_path / "resolved.yaml").write_text(dump(job))
    assert load_resolved(tmp_path / "resolved.yaml") == job
    job = load_job(tmp_path / "job.yaml", ["restart.by=successor", "restart.max_failures=3"]).job
    assert job.restart.max_failures == 3


def test_later_sets_win_and_may_replace_a_whole_mapping(tmp_path: Path) -> None:
    write(tmp_path, job=HELLO)
    job = load_job(tmp_path / "job.yaml", ["name=a", "name=b", "resources={time: 7m}"]).job
    assert (job.name, job.resources.time) == ("b", 420)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("name", "--set: name: is not KEY=VALUE; write e.g. --set resources.nodes=4"),
        ("=4", "--set: =4: is not KEY=VALUE; write e.g. --set resources.nodes=4"),
        ("stages.1.name=b", "--set: stages.1.name: 1 is no entry; write one of 0"),
        ("stages.first.name=b", "--set: stages.first.name: 'first' is no entry; write one of 0"),
        ("name.first=b", "--set: name.first: name is 'tiny', which has no parts; write name=VALUE"),
        ("name.first.second=b", "--set: name.first.second: name is 'tiny': no parts"),
        ("resources.nodes=many", "--set: resources.nodes: 'many' is not a whole number"),
        pytest.param(
            "resorces.nodes=2",
            "--set: resorces: unknown key; write resources",
        ),
        pytest.param(
            "stages.².name=b",
            "--set: stages.².name: '²' is no entry; write one of 0",
        ),
        pytest.param(
            "extends=base.yaml",
            "--set: extends: is read before --set; write it into the file",
        ),
    ],
)
def test_a_wrong_set_is_named(override: str, said: str) -> None:
    assert problems(TINY, override) == [said]


def test_each_problem_names_the_file_that_set_the_key(tmp_path: Path) -> None:
    write(
        tmp_path,
        base=HELLO.replace("5m", "5 parsecs"),
        job="extends: base.yaml\nleed: 5m\nrestart: {max_failures: 0}\n",
    )
    assert sorted(problems(tmp_path / "job.yaml", "resources.nodes=0")) == [
        f"--set: resources.nodes: {0!r} is out of range; write a value of at least 1",
        f"{tmp_path}/base.yaml: resources.time: '5 parsecs' is not a duration; write it like 90s, 5m, 24h or 1d12h",
        f"{tmp_path}/job.yaml: leed: unknown key; write lead",
        f"{tmp_path}/job.yaml: restart.max_failures: 0 is out of range; write a value of at least 1",
    ]


def test_relative_paths_start_at_the_project_root_wherever_the_spec_lies(tmp_path: Path) -> None:
    deep = tmp_path / "jobs/deep"
    deep.mkdir(parents=True)
    write(tmp_path)
    text = HELLO + "container: {image: images/x, mounts: [data, 'data:/in', {source: /abs}]}\n"
    (deep / "job.yaml").write_text(text)
    loaded = load_job(deep / "job.yaml")
    assert loaded.root == tmp_path
    assert loaded.job.container.image == f"{tmp_path}/images/x"
    mounts = [(mount.source, mount.target) for mount in loaded.job.container.mounts]
    assert mounts == [(f"{tmp_path}/data", None), (f"{tmp_path}/data", "/in"), ("/abs", None)]


def test_home_and_variables_stand_for_themselves_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("SCRATCH", "/scratch/7")
    write(tmp_path, job=HELLO + "container: {image: plain-name, mounts: ['~/data', '$SCRATCH/x:/x']}\n")
    container = load_job(tmp_path / "job.yaml").job.container
    assert container.image == "plain-name"
    assert [mount.source for mount in container.mounts] == ["/home/somebody/data", "/scratch/7/x"]


def test_a_folder_without_a_project_is_its_own_root(tmp_path: Path) -> None:
    assert project_root(tmp_path) == tmp_path


@pytest.mark.parametrize("spec", SPECS, ids=lambda p: p.name)
def test_the_resolved_spec_reads_back_equal(spec: Path, tmp_path: Path) -> None:
    job = load_job(spec).job
    (tmp_path / "spec.yaml").write_text(dump(job))
    assert load_resolved(tmp_path / "spec.yaml") == job


@given(
    lead=st.integers(0, 10**6),
    memory=st.integers(1, 2**50),
    value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
)
@settings(max_examples=30, deadline=None)
def test_any_values_survive_the_run_directory(
    lead: int, memory: int, value: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("resolved")
    raw = yaml.safe_load(HELLO) | {"env": {"VALUE": value}, "lead": f"{lead}s"}
    raw["resources"]["memory"] = f"{memory / 2**10}kB" if memory % 2**10 == 0 else "3MB"
    (folder / "job.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    job = load_job(folder / "job.yaml").job
    (folder / "spec.yaml").write_text(dump(job), encoding="utf-8")
    assert load_resolved(folder / "spec.yaml") == job
    assert job.env["VALUE"] == value


def test_a_line_break_that_only_yaml_knows_survives_too(tmp_path: Path) -> None:
    write(tmp_path, job=HELLO + 'env: {VALUE: "a\\x85b"}\n')
    job = load_job(tmp_path / "job.yaml").job
    assert job.env["VALUE"] == "a\x85b"
    (tmp_path / "spec.yaml").write_text(dump(job), encoding="utf-8")
    assert load_resolved(tmp_path / "spec.yaml") == job


def test_profiles_of_the_person_come_before_those_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, personal = tmp_path / "project", tmp_path / "config/xgen/clusters"
    (project / "slurm/clusters").mkdir(parents=True)
    personal.mkdir(parents=True)
    write(project)
    theirs, mine = project / "slurm/clusters/a.yaml", personal / "a.yaml"
    theirs.touch()
    assert find_profile("a", project) == ("a", theirs)
    mine.touch()
    assert find_profile("a", project) == ("a", mine)
    monkeypatch.setenv("XGEN_CLUSTER", "a")
    assert find_profile(None, project) == ("a", mine)
    assert find_profile(str(theirs), project) == ("a", theirs)
    assert find_profile("local", project) == ("local", ROOT / "slurm/clusters/local.yaml")


def test_an_unknown_cluster_lists_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(name: str | None) -> str:
        with pytest.raises(SpecError) as caught:
            find_profile(name, tmp_path)
        return str(caught.value)

    known = ", ".join(sorted(path.stem for path in (ROOT / "slurm/clusters").glob("*.yaml")))
    assert said(None) == f"cluster: none named; write --cluster NAME or set XGEN_CLUSTER: {known}"
    assert said("moon") == f"--cluster: 'moon' is no known cluster; known: {known}"
    assert said("./moon.yaml") == "--cluster: ./moon.yaml is no file; write the path of a cluster profile"
    monkeypatch.setenv("XGEN_CLUSTER", "mars")
    assert said(None) == f"$XGEN_CLUSTER: 'mars' is no known cluster; known: {known}"


@pytest.mark.parametrize("profile", sorted((ROOT / "slurm/clusters").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_profile_loads_and_reads_back_equal(profile: Path, tmp_path: Path) -> None:
    loaded = load_profile(profile)
    assert loaded.default_partition in loaded.partitions
    assert Path(loaded.run_root).is_absolute()
    (tmp_path / "cluster.yaml").write_text(dump(loaded))
    assert load_profile(tmp_path / "cluster.yaml") == loaded


def test_two_default_partitions_are_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("run_root: r\npartitions: {a: {default: true}, b: {default: true}}\n")
    with pytest.raises(SpecError, match="a, b are all default; write `default: true` once"):
        load_profile(tmp_path / "c.yaml")


def test_the_place_of_a_key_is_the_line_that_sets_it(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("a: 1\nlist:\n  - {x: 1}\n  - {x: 2}\n")
    file = tmp_path / "c.yaml"
    file.write_text("extends: base.yaml\nmap:\n  one: {y: 1}\n")
    keys = [("map", "one", "y"), ("map", "one", "z"), ("a",), ("list", 1, "x"), ("none",)]
    assert list(places(file, keys).values()) == [
        f"{file}:3", f"{file}:3", f"{tmp_path}/base.yaml:1", f"{tmp_path}/base.yaml:4", str(file),
    ]  # fmt: skip


@given(st.lists(st.integers(0, 99) | st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True), min_size=1, max_size=5))
def test_a_key_that_is_shown_is_read_back(parts: list[int | str]) -> None:
    assert parse_key(show_key(tuple(parts))) == tuple(parts)
