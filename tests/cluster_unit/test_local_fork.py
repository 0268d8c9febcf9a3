"""Runs that go on otherwise, under the whole contract of the batch script: forked, or resumed with changes."""

from __future__ import annotations

import json
import sys

import yaml

from tests.cluster_unit.conftest import (
    COUNTER,
    Bench,
    assert_every_step_once,
    events,
    steps,
    tell,
    wait_for,
    wait_for_steps,
    wait_until,
)
from tests.conftest import xgen
from xgen.cluster import local
from xgen.runs import RunDir
from xgen.spec import load_resolved


def ask(bench: Bench, *words: str) -> str:
    done = xgen(*words, "--cluster", str(bench.path / "local.yaml"), cwd=bench.path)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for_end(run: RunDir) -> None:
    wait_until(lambda: not local.is_alive(run), lambda: tell(run))


def cancelled_at_about(bench: Bench, number: int) -> RunDir:
    run = bench.count(200, "--step", 0.03, "--every", 5)
    wait_for_steps(run, number)
    ask(bench, "cancel", run.name)
    wait_for_end(run)
    return run


def test_a_fork_begins_after_the_parent_s_checkpoint_and_does_not_need_the_parent(bench: Bench) -> None:
    parent = bench.count(10, "--step", 0.01, "--every", 4)
    wait_for_end(parent)
    assert parent.checkpoint_steps() == [4, 8, 10]
    command = json.dumps([sys.executable, str(COUNTER), "12", "--step", "0.01"])
    said = json.loads(ask(bench, "fork", f"{parent.name}@8", "--set", f"command={command}", "--json"))
    fork = RunDir(bench.path / "runs" / said["run"])
    bench.runs.append(fork)
    wait_for(fork, "finished")
    assert [step for step, _ in steps(fork)] == [9, 10, 11, 12]
    assert fork.checkpoint_steps() == [8, 10, 12]
    assert parent.checkpoint_steps() == [4, 8, 10]


def test_a_resume_with_other_resources_keeps_the_old_spec_and_says_what_changed(bench: Bench) -> None:
    run = cancelled_at_about(bench, 7)
    before = run.spec_file.read_text()
    stamp = run.spec_file.stat().st_mtime_ns
    said = ask(bench, "resume", run.name, "--set", "resources.gpus_per_node=1", "--set", "env.A=1")
    assert said.splitlines()[1:] == [
        "  changed   env.A=1, resources.gpus_per_node=1",
        "  note      another topology: the data order is exactly the same, losses agree to about 1e-4; "
        "they are equal to the bit at the same one only",
    ]
    assert (run.path / "spec.1.yaml").read_text() == before
    assert run.spec_file.stat().st_mtime_ns == stamp  # runs are listed by it
    assert load_resolved(run.spec_file).resources.world_size == 1
    assert [e.reason for e in events(run, "queued")][1:] == ["resumed with env.A=1, resources.gpus_per_node=1"]
    wait_for(run, "started", 2)
    wait_until(lambda: steps(run)[-1][1] == 2, lambda: tell(run))
    assert len(steps(run, 1)) == len([step for step, attempt in steps(run, 1) if attempt == 1])
    ask(bench, "cancel", run.name)
    wait_for_end(run)
    ask(bench, "resume", run.name, "--set", "env.A=1")  # nothing changes by it
    assert not (run.path / "spec.2.yaml").exists()
    assert [e.reason for e in events(run, "queued")][2:] == ["resumed"]
    assert_every_step_once(run, steps(run)[-1][0])


def test_a_resume_that_is_refused_leaves_the_run_as_it_was(bench: Bench) -> None:
    run = cancelled_at_about(bench, 3)
    spec = yaml.safe_load(run.spec_file.read_text()) | {"secrets": {"KEY": {"env": "NO_SUCH_VARIABLE"}}}
    run.spec_file.write_text(yaml.safe_dump(spec))
    before = {path: path.read_bytes() for path in run.path.glob("*") if path.is_file()}
    for setting, message in (
        ("lead=6s", "secrets.KEY.env: NO_SUCH_VARIABLE is not set here; write export NO_SUCH_VARIABLE=… first"),
        ("lead=1h", "--set: lead: 1h leaves nothing of the time limit 5m; write less"),
        ("resources.partition=nowhere", "--set: resources.partition: 'nowhere' is not in the cluster profile; "
                                        "write one of gpu, preempt"),
        ("resources.nods=2", "--set: resources.nods: unknown key; write nodes"),
        ("command=[echo]", "--set: command: not to be changed in a run, for it changes what is computed; "
                           f"use: xgen fork {run.name} --set 'command=[echo]'"),
        ("name=x", "--set: name: not to be changed in a run, for it changes what is computed; "
                   f"use: xgen fork {run.name} --set name=x"),
    ):  # fmt: skip
        done = xgen("resume", run.name, "--set", setting, "--cluster", str(bench.path / "local.yaml"), cwd=bench.path)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", message + "\n")
        after = {path: path.read_bytes() for path in run.path.glob("*") if path.is_file()}
        assert {p: t for p, t in after.items() if p.name != ".resume.lock"} == {
            p: t for p, t in before.items() if p.name != ".resume.lock"
        }
