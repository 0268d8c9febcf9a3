"""Jobs that wait for a run follow it to its new jobs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from xgen.cluster.behind import Behind, held, note, repoint
from xgen.cluster.host import host_library
from xgen.runs import RunDir
from xgen.spec.pipeline import How

# As scontrol of SLURM 22.05 prints them.
JOBS = {
    "20": "JobId=20 JobState=PENDING Dependency=afterok:12(unfulfilled),afterany:13_*(unfulfilled) Requeue=1",
    "21": "JobId=21 JobState=PENDING Dependency=afterany:12(unfulfilled) Requeue=1",
    "22": "JobId=22 JobState=RUNNING Dependency=(null) Requeue=1",
}
SCONTROL = """#!/bin/sh
case "$1" in
  show) cat "$JOBS/$4" 2>/dev/null || { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; } ;;
  update) echo "$2 $3" >>"$JOBS/updates" ;;
esac
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run of one stage, job 12, for which three jobs waited, and one that is gone."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/scontrol").write_text(SCONTROL)
    (tmp_path / "bin/scontrol").chmod(0o755)
    (tmp_path / "jobs").mkdir()
    for number, record in JOBS.items():
        (tmp_path / "jobs" / number).write_text(record + "\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("JOBS", str(tmp_path / "jobs"))
    found = RunDir(tmp_path / "runs" / "p-c-aaaaaa")
    found.create()
    found.job_file(0).parent.mkdir()
    found.job_file(0).write_text("12\n")
    waiting: dict[str, How] = {"20": "ok", "21": "any", "22": "ok", "23": "ok"}
    for number, how in waiting.items():
        with held([Behind(found, 0, how)]) as terms:
            note(terms, number)
    return found


def in_python(run: RunDir) -> None:
    assert repoint(run, "30:31") == ["20", "21"]


def in_the_batch_script(run: RunDir) -> None:
    script = f"RUN={run.path} SLURM_JOB_ID=12\n{host_library()}\nrepoint 30:31"
    subprocess.run(["bash", "-c", script], check=True, timeout=60)


@pytest.mark.parametrize("move", [in_python, in_the_batch_script])
def test_who_waits_is_pointed_at_the_new_jobs_and_keeps_what_else_it_waits_for(
    run: RunDir, move: Callable[[RunDir], None]
) -> None:
    move(run)
    updates = (Path(os.environ["JOBS"]) / "updates").read_text().splitlines()
    told = dict(line.removeprefix("JobId=").split(" Dependency=") for line in updates)
    assert {job: set(terms.split(",")) for job, terms in told.items()} == {
        "20": {"afterok:30:31", "afterany:13"},
        "21": {"afterany:30:31"},
    }
    left = {file.name: file.read_text().strip() for file in (run.path / "waiting").iterdir()}
    assert left == {"20": "afterok:30:31", "21": "afterany:30:31"}
