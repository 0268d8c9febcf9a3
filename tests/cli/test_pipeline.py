"""A diamond with a failing branch on the local executor, as a person sees it, and the pipelines of this project."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, xgen
from xgen.cli.pipeline import graph, table
from xgen.cli.pipeline_show import show_status
from xgen.cluster import local
from xgen.cluster.pipeline import Record, StepRecord
from xgen.cluster.slurm import QueueRow
from xgen.cluster.status import QueueView
from xgen.runs import EventWriter, RunDir, read_events
from xgen.spec.pipeline import How

LOCAL = ROOT / "slurm" / "clusters" / "local.yaml"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A project with a profile whose runs lie in it."""
    (tmp_path / "pyproject.toml").touch()
    profile = yaml.safe_load(LOCAL.read_text())
    profile["run_root"] = str(tmp_path / "runs")
    profile["container"]["python"] = str(ROOT / ".venv/bin/python")
    (tmp_path / "local.yaml").write_text(yaml.dump(profile))
    job = {"kind": "command", "name": "x", "command": ["true"], "lead": "10s",
           "resources": {"nodes": 1, "gpus_per_node": 0, "time": "5m"}}  # fmt: skip
    (tmp_path / "job.yaml").write_text(yaml.dump(job))
    return tmp_path


def write(place: Path, **commands: tuple[str, dict[str, Any]]) -> Path:
    steps = {
        name: {"spec": "job.yaml", "set": {"command": ["sh", "-c", text]}, **more}
        for name, (text, more) in commands.items()
    }
    file = place / "pipeline.yaml"
    file.write_text(yaml.dump({"kind": "pipeline", "name": "diamond", "steps": steps}, sort_keys=False))
    return file


def run(place: Path, *arguments: str, code: int = 0) -> str:
    done = xgen(*arguments, "--cluster", str(place / "local.yaml"), cwd=place)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def states(place: Path, name: str) -> dict[str, str]:
    """Of each step, once its supervisor has ended."""
    pipeline = RunDir(place / "runs" / name)
    deadline = time.monotonic() + 120
    while local.is_alive(pipeline):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    facts = json.loads(run(place, "status", name, "--json"))
    return {step["step"]: step["state"] for step in facts["steps"]}


def test_a_failing_branch_stops_what_needs_it_is_mended_and_only_what_is_needed_runs(place: Path) -> None:
    write(
        place,
        a=("echo a > $XGEN_RUN_DIR/out", {}),
        b=("cat ${a.path}/out", {}),
        c=("cat ${a.path}/out && test -e mended", {}),
        d=("echo ${b.run} ${c.run}", {}),
    )
    submitted = run(place, "submit", "pipeline.yaml", "--id", "aaaaaa")
    assert submitted.endswith(f"watch it:   xgen status diamond-aaaaaa --cluster {place}/local.yaml\n"
                              f"            xgen watch diamond-aaaaaa --cluster {place}/local.yaml\n")  # fmt: skip
    assert states(place, "diamond-aaaaaa") == {"a": "finished", "b": "finished", "c": "failed", "d": "blocked"}
    shown = run(place, "status", "diamond-aaaaaa")
    assert "diamond-aaaaaa  failed (c is failed; write xgen resume diamond-aaaaaa)" in shown
    assert "└ c    failed (rank 0: the command exited with 1)" in shown
    watched = json.loads(run(place, "watch", "diamond-aaaaaa", "--json"))
    assert {one["name"]: one["state"] for one in watched} == {
        "diamond-a-aaaaaa": "finished", "diamond-b-aaaaaa": "finished", "diamond-c-aaaaaa": "failed",
        "diamond-d-aaaaaa": "blocked",
    }  # fmt: skip
    assert " held  CPU-hours\n" in run(place, "show", "diamond-aaaaaa")  # the profile has no GPUs
    b = json.loads(run(place, "show", "diamond-aaaaaa", "--json"))["steps"][1]
    (before, after) = (read_events(RunDir(place / "runs" / f"diamond-{step}-aaaaaa")) for step in "ab")
    started = next(event.time for event in after if event.event == "started")
    assert b["queued"] == pytest.approx(started - before[-1].time)  # and not since it was submitted

    settings = ("--set", "c.command=[sh, -c, 'cat ${a.path}/out']")
    facts = json.loads(run(place, "resume", "diamond-aaaaaa", *settings, "--dry-run", "--json"))
    assert [(s["step"], s["action"]) for s in facts["steps"]] == [
        ("a", "reuse"), ("b", "reuse"), ("c", "anew"), ("d", "submit"),
    ]  # fmt: skip
    told = {s["run"] for s in facts["steps"]}
    run(place, "resume", "diamond-aaaaaa", *settings)
    assert set(states(place, "diamond-aaaaaa").values()) == {"finished"}
    shown = json.loads(run(place, "status", "diamond-aaaaaa", "--json"))
    assert {step["run"] for step in shown["steps"]} == told  # by the dry run
    attempts = {path.parent.parent.name[: len("diamond-a")] for path in (place / "runs").glob("*/attempts/0002")}
    assert attempts == set()  # c is a new run; nothing ran twice
    assert len(list((place / "runs").glob("diamond-c-*"))) == 2
    assert "nothing of it has changed" in run(place, "resume", "diamond-aaaaaa", code=2)
    again = ("submit", "pipeline.yaml", "--reuse", "diamond-aaaaaa", "--dry-run", "--json")
    facts = json.loads(run(place, *again, *settings, "--set", "b.command=[sh, -c, 'ls ${a.path}']"))
    assert [(s["step"], s["action"]) for s in facts["steps"]] == [
        ("a", "reuse"), ("b", "anew"), ("c", "reuse"), ("d", "anew"),
    ]  # fmt: skip


def test_a_step_of_several_stages_says_which_it_is_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline, own = RunDir(tmp_path / "seed-aaaaaa"), RunDir(tmp_path / "seed-curate-aaaaaa")
    for one in (pipeline, own):
        one.create()
    step = StepRecord(run=own.name, kind="curate", needs={}, fingerprint="")
    Record(file="", overrides=[], cluster="dev", runtime=None, steps={"curate": step}).write(pipeline)
    for attempt, stage in enumerate(("prepare", "tag", "match"), 1):
        EventWriter(own, "host", attempt, "7").write("started", nodes="n1", stage=stage)
        own.attempt_dir(attempt).mkdir()
    queue = {own.name: QueueRow("7", own.name, "RUNNING", "None", "gpu", "n1", "N/A", "0")}
    show_status(pipeline, QueueView(queue), as_json=False)
    assert "  curate  running (match)  seed-curate-aaaaaa" in capsys.readouterr().out  # no third attempt


def test_nothing_is_left_of_a_pipeline_with_a_mistake(place: Path) -> None:
    write(place, a=("true", {}), b=("true", {"after": "a"}))
    said = run(place, "submit", "pipeline.yaml", "--set", "b.resources.partition=nowhere", code=2)
    assert "steps.b.set.resources.partition: 'nowhere' is not in the cluster profile" in said
    words = ("submit", "pipeline.yaml", "--set", "b.resources.partition=nowhere", "--dry-run", "--json")
    done = xgen(*words, "--cluster", str(place / "local.yaml"), cwd=place)
    assert done.returncode == 2
    assert [step["step"] for step in json.loads(done.stdout)["steps"]] == ["a", "b"]  # and the mistake on stderr
    assert "'nowhere' is not in the cluster profile" in done.stderr
    assert not (place / "runs").exists()


def test_the_graph_shows_branches_and_what_else_is_waited_for() -> None:
    needs: dict[str, dict[str, How]] = {
        "a": {},
        "b": {"a": "ok"},
        "c": {"a": "ok"},
        "d": {"a": "ok", "b": "ok", "c": "any"},
    }
    rows = [(lead + name, after) for name, lead, after in graph(needs)]
    assert table(rows) == ["a", "├ b", "│ └ d  after c, however it ends", "└ c"]


def test_a_graph_that_is_deep_is_a_list() -> None:
    needs: dict[str, dict[str, How]] = {f"s{n}": {f"s{n - 1}": "ok"} if n else {} for n in range(30)}
    assert graph(needs)[-1] == ("s29", "", "after s28")


@pytest.mark.parametrize(("size", "least"), [("4b", 1e5), ("9b", 2e5)])
def test_the_pipelines_of_the_models_add_up_all_gpu_hours(size: str, least: float) -> None:
    done = xgen("plan", f"jobs/{size}/pipeline.yaml", "--cluster", "example-h100", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert [step["step"] for step in facts["steps"]] == ["pretrain", "sft", "dpo", "rl", "evaluate"]
    assert facts["gpu_hours"] == pytest.approx(sum(step["gpu_hours"] for step in facts["steps"]))
    assert facts["gpu_hours"] > least


def test_the_steps_of_a_pipeline_are_held_against_the_project_together(place: Path) -> None:
    profile = yaml.safe_load((place / "local.yaml").read_text())
    profile["projects"] = {"nlp": {"budget": {"gpu_hours": 0.2, "over": "refuse"}}}
    (place / "local.yaml").write_text(yaml.dump(profile))
    job = yaml.safe_load((place / "job.yaml").read_text()) | {"project": "nlp"}
    job["resources"]["gpus_per_node"] = 1  # for 5 minutes, of the 12 that are left
    (place / "job.yaml").write_text(yaml.dump(job))
    said = "'nlp' has 0.2 left of 0.2 in 30d, and this asks for 0.25 GPU-hours by its time limit; used are 0"
    three = {name: ("true", {}) for name in ("a", "b", "c")}
    write(place, a=("true", {}), b=("true", {}))
    run(place, "submit", "pipeline.yaml", "--dry-run")
    write(place, **three)
    told = run(place, "submit", "pipeline.yaml", "--id", "aaaaaa", code=2)
    assert told == f"{place}/job.yaml: project: {said}; ask for less, or write --over-budget\n"
    assert not (place / "runs" / "diamond-aaaaaa").exists()
    command = ("submit", "pipeline.yaml", "--id", "aaaaaa", "--over-budget", "--cluster", str(place / "local.yaml"))
    done = xgen(*command, cwd=place)
    assert (done.returncode, done.stderr) == (0, f"warning: {said}\n")
    assert set(states(place, "diamond-aaaaaa").values()) == {"finished"}
