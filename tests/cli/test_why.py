"""`xgen why`: the first error over all ranks of a run that died, and what a person should do."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.cli.conftest import Project
from tests.cli.test_show import run  # noqa: F401 - a fixture
from tests.cluster_unit.conftest import wait_until
from xgen.runs import EventName, EventWriter, RunDir, read_events

SPEC = """\
kind: command
name: dies
command: [{python}, -c, "{code}"]
resources: {{partition: gpu, nodes: 1, gpus_per_node: 2, time: 5m}}
lead: 30s
"""
# Rank 1 dies of a full disk; rank 0 sees later that its peer is gone.
CODE = (
    "import os, time; rank = os.environ['XGEN_RANK'];"
    "time.sleep(1 - int(rank)); raise (OSError(28, 'No space left on device') if rank == '1' else EOFError('peer'))"
)


def submit(project: Project, code: str, more: str = "") -> RunDir:
    (project.path / "spec.yaml").write_text(SPEC.format(python=sys.executable, code=code) + more)
    done = project.xgen("submit", "spec.yaml", "--cluster", "local", "--json")
    assert done.returncode == 0, done.stderr
    found = RunDir(Path(json.loads(done.stdout)["path"]))
    wait_until(found.ended_file.exists, lambda: "the end")
    return found


def test_a_run_that_died_tells_the_first_error_its_meaning_and_what_to_do(project: Project) -> None:
    died = submit(project, CODE)
    done = project.xgen("why", died.name, "--cluster", "local", env={"COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert said.startswith(f"{died.name} died in attempt 1: a disk is full, or a quota. The first error of rank 1 on ")
    assert "OSError: [Errno 28] No space left on device" in said
    assert (
        f"do: make room in the run root; xgen checkpoints says what checkpoints take; then xgen resume {died.name}"
        in said
    )
    facts = json.loads(project.xgen("why", died.name, "--cluster", "local", "--json").stdout)
    assert (facts["state"], facts["facts"]["rank"]) == ("failed", 1)


def test_a_job_array_tells_the_first_error_of_the_first_shard_that_is_given_up(project: Project) -> None:
    died = submit(project, CODE, more="array: {shards: 2}\nrestart: {max_failures: 1}\n")
    said = " ".join(project.xgen("why", died.name, "--cluster", "local").stdout.split())
    assert said.startswith(f"{died.name} died in attempt 1 of shard 0: a disk is full, or a quota. The first error of")
    assert "--err" not in said


def test_between_two_attempts_it_says_when_the_next_begins(project: Project) -> None:
    restart = "restart: {max_failures: 3, backoff: {first: 1h, most: 1h}}\n"
    (project.path / "spec.yaml").write_text(SPEC.format(python=sys.executable, code="raise SystemExit(3)") + restart)
    name = json.loads(project.xgen("submit", "spec.yaml", "--cluster", "local", "--json").stdout)["run"]
    begun = RunDir(project.runs / name)
    try:
        wait_until(lambda: [e.attempt for e in read_events(begun) if e.event == "requeued"] == [1, 2], lambda: "tries")
        said = " ".join(project.xgen("why", name, "--cluster", "local").stdout.split())
    finally:
        project.xgen("cancel", name, "--cluster", "local")
    assert f"{name} waits for attempt 3, which begins in " in said
    assert "| attempt 2: crashed: " in said


def test_a_run_that_finished_needs_nothing(project: Project) -> None:
    ended = submit(project, "print(1)")
    said = project.xgen("why", ended.name, "--cluster", "local").stdout.splitlines()
    assert said == [f"{ended.name} has finished", f"do: nothing; xgen show {ended.name} says what it cost"]
    header = project.xgen("show", ended.name, "--cluster", "local").stdout.splitlines()[1]
    assert "work" in header and "start" not in header  # as in the line below it: a command has no first step


def test_a_run_whose_attempt_has_just_ended_is_not_said_to_go_on(project: Project, run: RunDir) -> None:  # noqa: F811
    (project.path / "bin").mkdir()
    squeue = project.path / "bin/squeue"
    squeue.write_text(f'#!/bin/sh\necho "7|{run.name}|RUNNING|None|gpu|n1|N/A|0|"\n')
    squeue.chmod(0o755)
    events: tuple[EventName, ...] = ("started", "exited")
    for event in events:
        EventWriter(run, "host", 4, "7").write(event)
    path = f"{project.path}/bin:{os.environ['PATH']}"
    said = project.xgen("why", run.name, "--cluster", "local", env={"PATH": path}).stdout
    assert said.startswith(f"{run.name} has ended attempt 4, and is deciding what follows\n")


def test_a_run_that_nobody_decided_about_is_settled_and_says_why_it_died(project: Project, run: RunDir) -> None:  # noqa: F811
    """By the local executor's own records: a SLURM that is here too has another job with that number."""
    for command in ("scontrol", "sacct"):
        (project.path / "bin").mkdir(exist_ok=True)
        (project.path / "bin" / command).write_text("#!/bin/sh\necho JobState=CANCELLED\n")
        (project.path / "bin" / command).chmod(0o755)
    path = f"{project.path}/bin:{os.environ['PATH']}"
    (run.path / "local").mkdir()
    run.spec_file.write_text(run.spec_file.read_text() + "restart: {max_failures: 1}\n")
    (run.attempt_dir(3) / "err.log").write_text("0: Fatal Python error: Bus error\n")
    said = " ".join(project.xgen("why", run.name, "--cluster", "local", env={"PATH": path}).stdout.split())
    assert "/dev/shm is too small" in said
    assert "container.shm: 16GB; then xgen resume" in said
