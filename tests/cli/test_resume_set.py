"""`xgen resume --set`: a run goes on in another image or on other nodes, or it is left exactly as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import TRAIN, Project, fake_slurm
from tests.train.folders import save
from xgen.cli import resume
from xgen.runs import EventWriter, RunDir
from xgen.spec import SpecError, dump, load_job, load_profile, load_resolved

NAME = "hello-abc234"


def make_run(project: Project, *settings: str, profile: str = "local") -> RunDir:
    """A run that was cancelled in its first attempt."""
    run = RunDir(project.runs / NAME)
    run.create()
    run.spec_file.write_text(dump(load_job(project.path / "hello.yaml", [f"cluster={profile}", *settings]).job))
    run.profile_file.write_text(dump(load_profile(project.path / f"slurm/clusters/{profile}.yaml")))
    EventWriter(run, "host", 1, "7").write("started")
    EventWriter(run, "host", 1, "7").write("cancelled")
    run.attempt_dir(1).mkdir()
    run.cancelled_file.touch()
    return run


def contents(run: RunDir) -> dict[str, str]:
    files = [path for path in run.path.rglob("*") if path.is_file() and path.name != ".resume.lock"]
    return {str(path.relative_to(run.path)): path.read_text() for path in files}


def test_a_new_image_is_looked_up_and_the_old_one_kept(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (project.path / "images" / name).mkdir(parents=True)
    run = make_run(project, "container.image=one", profile="boxed")
    (run.path / "image.json").write_text(json.dumps({"reference": "one", "kind": "folder", "location": "/old"}) + "\n")
    before = contents(run)
    profile, job = load_profile(run.profile_file), load_resolved(run.spec_file)
    loaded, changed = resume._changed(run, job, profile, ["container.image=two"], 0)
    assert changed == {"container.image": "two"}
    undo = resume.replace_spec(run, loaded, profile, changed, 0)
    assert json.loads(run.image_file.read_text())["location"] == str(project.path / "images/two")
    assert (run.path / "image.1.json").read_text() == before["image.json"]
    assert (run.path / "spec.1.yaml").read_text() == before["spec.yaml"]
    assert load_resolved(run.spec_file).container.image == "two"
    for step in reversed(undo):
        step()
    assert contents(run) == before
    loaded, changed = resume._changed(run, job, profile, ["lead=31s"], 0)
    resume.replace_spec(run, loaded, profile, changed, 0)
    assert run.image_file.read_text() == before["image.json"]  # what the name meant at submission
    with pytest.raises(SpecError, match=r"container\.image: 'three' is not there as "):
        resume.replace_spec(
            run, resume._changed(run, job, profile, ["container.image=three"], 0)[0], profile, {"container.image": 1}, 0
        )


def slurm(folder: Path, sbatch: str) -> dict[str, str]:
    """An empty queue, and an sbatch that answers the test with `sbatch` and takes no job."""
    refusal = f'case "$1" in --test-only) cat >/dev/null; {sbatch} ;; *) echo "no more jobs" >&2; exit 1 ;; esac'
    return fake_slurm(folder, refusal)


@pytest.mark.parametrize(
    ("sbatch", "code", "said"),
    [
        ("echo 'sbatch: error: Too many nodes' >&2; exit 1", 2, "cluster batch: sbatch --test-only: Too many nodes"),
        ("true", 3, "the scheduler: "),
    ],
    ids=["at the test", "at the submission"],
)
def test_where_the_scheduler_refuses_the_run_is_as_it_was(
    project: Project, tmp_path: Path, sbatch: str, code: int, said: str
) -> None:
    run = make_run(project, profile="batch")
    before = contents(run)
    arguments = ("resume", NAME, "--set", "resources.nodes=9", "--cluster", "batch")
    done = project.xgen(*arguments, env=slurm(tmp_path, sbatch))
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.splitlines()[-1].startswith(said)
    after = contents(run)
    assert {name: text for name, text in after.items() if not name.startswith(("resumed", "submissions/"))} == before


def test_what_changes_the_computation_is_left_to_a_fork(project: Project) -> None:
    run = make_run(project)
    run.spec_file.write_text(dump(load_job(project.path / "train.yaml").job))
    before = contents(run)
    settings = ("--set", "stages.0.lr.peak=1e-4", "--set", "resources.nodes=1", "--set", "seed=2")
    done = project.xgen("resume", NAME, *settings, "--cluster", "local")
    assert (done.returncode, done.stderr) == (
        2,
        "--set: seed, stages[0].lr.peak: not to be changed in a run, for it changes what is computed; "
        f"use: xgen fork {NAME} --set stages.0.lr.peak=1e-4 --set resources.nodes=1 --set seed=2\n",
    )
    assert contents(run) == before


def test_a_later_stage_goes_on_on_other_nodes_whatever_the_stages_that_are_done_would_need(
    project: Project, tmp_path: Path
) -> None:
    run = make_run(project, profile="batch")
    stages = "  - {name: middle, tokens: 10k}\n  - {name: last, tokens: 10k}\n"
    (project.path / "train.yaml").write_text(TRAIN.replace("1k", "1k\n    parallelism: {fsdp: 4}") + stages)
    run.spec_file.write_text(dump(load_job(project.path / "train.yaml", ["cluster=batch"]).job))
    save(run, 85)  # of middle: 79 steps of the first stage, then 10 and 10
    arguments = ("resume", NAME, "--cluster", "batch", "--json")
    environment = fake_slurm(
        tmp_path, 'case "$1" in --test-only) cat >/dev/null ;; *) echo "Submitted batch job 8" ;; esac'
    )
    later = [f"stages.{stage}.{key}" for stage in (1, 2) for key in ("parallelism={fsdp: 2}", "compile=true")]
    settings = [f"--set={setting}" for setting in ("stages.1.resources.nodes=1", *later)]
    done = project.xgen(*arguments, *settings, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["changed"] == {
        f"stages[{stage}].{key}": value
        for key, value in (("compile", True), ("parallelism.fsdp", 2), ("resources.nodes", 1))
        for stage in (1, 2)
    }
    assert [place.resources.nodes for place in load_resolved(run.spec_file).places] == [2, 1, 1]
    (run.cancelled_file).touch()
    everywhere = project.xgen(*arguments, "--set", "resources.time=9m", *settings[1:], env=environment)
    assert (everywhere.returncode, everywhere.stderr) == (0, "")


EVALUATE = """\
kind: evaluate
name: scores
checkpoints: train-abc234
recall: {lengths: [256], samples: 40}
resources: {partition: gpu, nodes: 1, gpus_per_node: 1, time: 5m}
lead: 30s
array: {shards: 2}
"""


def test_an_evaluation_goes_on_with_other_shards(project: Project, tmp_path: Path) -> None:
    """Which samples are done is known of each of them; what there is of the old shards gets another name."""
    run = make_run(project, profile="batch")
    trained = RunDir(project.runs / "train-abc234")
    trained.create()
    trained.spec_file.write_text(dump(load_job(project.path / "train.yaml", ["cluster=batch"]).job))
    save(trained, 40)
    (project.path / "evaluate.yaml").write_text(EVALUATE)
    run.spec_file.write_text(dump(load_job(project.path / "evaluate.yaml", ["cluster=batch"]).job))
    finished = run.shard("score", 0).path.parent / ".finished/0"
    finished.parent.mkdir(parents=True)
    finished.touch()
    records = run.evaluation_dir / "step-40/0.jsonl"
    records.parent.mkdir(parents=True)
    records.write_text("{}\n")
    queue = 'case "$1" in --test-only) cat >/dev/null ;; *) echo "Submitted batch job 8" ;; esac'
    environment = fake_slurm(tmp_path, queue)
    arguments = ("resume", NAME, "--cluster", "batch", "--json", "--set", "array.shards=5", "--set", "at_once=4")
    done = project.xgen(*arguments, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["changed"], told["shards"]) == ({"array.shards": 5, "at_once": 4}, [0, 1, 2, 3, 4])
    assert not finished.exists()
    assert (run.shards_dir / "score.before-1/.finished/0").exists()
    assert records.read_text() == "{}\n"

    run.cancelled_file.touch()
    changed = project.xgen(*arguments[:-4], "--set", "recall.samples=50", env=environment)
    assert changed.returncode == 2
    assert changed.stderr == (
        "--set: recall.samples: not to be changed in a run, for it changes what is computed; "
        f"use: xgen submit {run.spec_file} --set recall.samples=50\n"
    )
    assert run.cancelled_file.exists()
