"""`xgen doctor` where there is no SLURM, or none that answers, and of what is wrong with the call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Project
from tests.conftest import ROOT, SPECS
from xgen.cli.doctor_needs import needs_of
from xgen.spec import load_job, load_profile

SCHEDULER_GONE = {"PATH": "/nonexistent"}


def report(project: Project, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    done = project.xgen("doctor", "--json", *arguments, env=env)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_without_slurm_this_machine_is_the_node_and_nothing_is_left(project: Project) -> None:
    before = project.files()
    code, told = report(project, "hello.yaml", "--cluster", "local")
    severities = {finding["what"]: finding["severity"] for finding in told["findings"]}
    assert (code, told["slurm"], told["unanswered"]) == (0, None, [])
    assert {"spec", "run root", "room", "file locks", "nodes", "shared run root", "interpreter", "clock"} <= set(
        severities
    )
    assert "grace" not in severities  # which is SLURM's
    assert project.files() == before


def test_what_no_controller_answers_is_unknown_and_the_rest_is_judged(project: Project) -> None:
    code, told = report(project, "hello.yaml", "--cluster", "batch", "--on-node", env=SCHEDULER_GONE)
    assert code == 3
    assert [line.partition(":")[0] for line in told["unanswered"]] == ["SLURM's settings", "nodes"]
    assert {finding["severity"] for finding in told["findings"]} == {"ok"}
    done = project.xgen("doctor", "--cluster", "batch", env=SCHEDULER_GONE)
    assert "unknown  SLURM's settings: scontrol is not on PATH" in done.stdout
    assert done.stdout.endswith("batch: not all was answered\n")


def test_a_spec_that_would_be_refused_is_a_failure_with_its_fix(project: Project) -> None:
    code, told = report(project, "hello.yaml", "--set", "resources.time=9h", "--cluster", "local")
    (found,) = [finding for finding in told["findings"] if finding["severity"] == "failed"]
    assert (code, found["what"]) == (1, "spec")
    assert "resources.time: 9h is over the partition's limit" in found["evidence"]
    assert found["fix"].startswith("write 1h or less")


def test_the_bandwidth_of_one_rank_is_unknown(project: Project) -> None:
    code, told = report(project, "--network", "--nodes", "1", "--cluster", "local")
    assert (code, told["runs"]) == (0, {})
    assert told["unanswered"] == ["bandwidth: one rank has nobody to talk to; write --nodes 2"]


def test_an_image_that_is_not_there_is_a_failure_with_its_fix(project: Project) -> None:
    code, told = report(project, "--image", "absent", "--cluster", "boxed")
    found = next(finding for finding in told["findings"] if finding["what"] == "image")
    assert (code, found["severity"]) == (1, "failed")
    assert "'absent' is not there as" in found["evidence"]
    assert found["fix"].startswith("write `xgen image build`")


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.parent.name}-{spec.stem}")
def test_what_each_spec_of_ours_needs_is_known(spec: Path) -> None:
    loaded = load_job(spec, [])
    needs = needs_of(loaded, load_profile(ROOT / "slurm/clusters/dev.yaml"))
    assert len(needs) == len(loaded.job.jobs)
    assert all(need.nodes and need.time and need.partition in ("gpu", "preempt") for need in needs)


def test_a_call_that_cannot_be_meant_says_what_to_write(project: Project) -> None:
    done = project.xgen("doctor", "--set", "lead=1m", "--cluster", "local")
    assert (done.returncode, done.stderr) == (2, "--set changes a spec; write xgen doctor SPEC --set KEY=VALUE\n")
    done = project.xgen("doctor", "--network", "--cluster", "boxed")
    assert done.returncode == 2
    assert "charliecloud starts images; write --image NAME" in done.stderr
    pipeline = ROOT / "jobs/tiny/pipeline.yaml"
    done = project.xgen("doctor", str(pipeline), "--cluster", "local")
    assert (done.returncode, done.stderr) == (2, f"{pipeline} is a pipeline; write the spec of one of its steps\n")
