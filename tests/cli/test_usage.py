"""`xgen usage`: sums by whatever is asked for, beside what sacct has, and from a cache."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import time
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import HELLO, PROFILE, Project
from tests.metrics.fake_slurm import DOWN, FakeSlurm
from xgen.runs import Event, EventName, RunDir

HOUR = 3600.0


def make_run(
    place: Project, name: str, scheduler: str, ago: float, hours: float, job_id: str = "81", **keys: object
) -> RunDir:
    """A command on two GPUs that ended `ago` hours before now, after so many hours."""
    run = RunDir(place.runs / name)
    run.create()
    spec = yaml.safe_load(HELLO) | {"name": name[:-7], **keys}
    run.spec_file.write_text(yaml.safe_dump(spec))
    run.profile_file.write_text(PROFILE.format(scheduler=scheduler, request="none"))
    end = time.time() - ago * HOUR

    def tell(at: float, event: EventName, attempt: int, writer: str = "host") -> None:
        line = Event(time=at, run=name, attempt=attempt, job_id=job_id, event=event, writer=writer).to_line()
        with (run.events_dir / f"{writer}.jsonl").open("a") as file:
            file.write(line)

    tell(end - (hours + 1) * HOUR, "queued", 0, "client")
    tell(end - hours * HOUR, "started", 1)
    tell(end, "exited", 1)
    tell(end, "finished", 1)
    return run


@pytest.fixture
def runs(project: Project) -> list[RunDir]:
    return [
        make_run(project, "one-aaaaaa", "slurm", 1, 10, project="nlp"),
        make_run(project, "two-bbbbbb", "slurm", 200, 4, project="speech"),
    ]


def facts(project: Project, *arguments: str, **env: str) -> dict[str, object]:
    done = project.xgen("usage", "--cluster", "batch", "--json", *arguments, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.usefixtures("runs")
def test_hours_are_summed_by_what_is_asked_for_since_when_it_is_asked_for(project: Project, tmp_path: Path) -> None:
    slurm = FakeSlurm(tmp_path)
    slurm.say("squeue", "true")
    slurm.say("sacct", DOWN)
    path = f"{slurm.bin}:{os.environ['PATH']}"

    def hours(*arguments: str) -> dict[str, float]:
        rows = facts(project, *arguments, PATH=path)["rows"]
        assert isinstance(rows, list)
        return {"/".join(str(row[key]) for key in row if key in ("project", "phase")): row["hours"] for row in rows}

    close = pytest.approx
    assert hours("--by", "project") == {"nlp": close(20, rel=1e-3)}
    assert hours("--by", "project", "--since", "all") == {"nlp": close(20, rel=1e-3), "speech": close(8, rel=1e-3)}
    assert hours("--by", "project", "--since", "99999999999999999d").keys() == {"nlp", "speech"}
    middle = datetime.fromtimestamp(time.time() - 6 * HOUR).isoformat()
    assert hours("--by", "project", "--since", middle) == {"nlp": close(10, rel=5e-2)}
    assert hours("--by", "project,phase", "--since", "all") == {
        "nlp/work": close(20, 1e-3),
        "speech/work": close(8, 1e-3),
    }
    # Of what has ended no event is read again.
    shutil.rmtree(project.runs / "two-bbbbbb" / "attempts")
    (project.runs / "two-bbbbbb" / "events" / "host.jsonl").unlink()
    assert hours("--by", "project", "--since", "all") == {"nlp": close(20, rel=1e-3), "speech": close(8, rel=1e-3)}
    document = facts(project, PATH=path)
    assert document["unit"] == "GPU-hours"
    assert str(document["sacct_error"]).startswith("without SLURM's accounting (sacct: ")


@pytest.mark.usefixtures("runs")
def test_what_sacct_says_of_the_same_jobs_stands_beside_it(project: Project, tmp_path: Path) -> None:
    slurm = FakeSlurm(tmp_path)
    slurm.say("squeue", "true")
    end = int(time.time() - HOUR)
    rows = [
        f"81|COMPLETED|{end - 36000 - 720}|{end}|1|2|billing=2,cpu=2,gres/gpu=2,node=1",
        "82|COMPLETED|5|9|1|1|gres/gpu=9",
    ]
    slurm.say("sacct", "; ".join(f"echo '{row}'" for row in rows))
    path = f"{slurm.bin}:{os.environ['PATH']}"
    sacct = facts(project, PATH=path)["sacct"]
    assert isinstance(sacct, dict)
    assert (sacct["events"], sacct["sacct"]) == (pytest.approx(20, rel=1e-3), pytest.approx(20.4, rel=1e-3))
    done = project.xgen("usage", "--cluster", "batch", env={"PATH": path, "COLUMNS": "80"})
    assert done.stdout.splitlines()[-2:] == [
        "sacct has 20.4 GPU-hours of the same jobs, +2.0%",
        "  most apart: one-aaaaaa 20 here, 20.4 there",
    ]
    assert max(map(len, done.stdout.splitlines())) <= 80
    (call,) = [line for line in slurm.calls.read_text().splitlines() if "--duplicates" in line][:1]
    assert "--truncate" in call


@pytest.mark.usefixtures("runs")
def test_jobs_that_sacct_hides_are_not_compared(project: Project, tmp_path: Path) -> None:
    """PrivateData=jobs: of others' jobs sacct prints nothing, and no error."""
    make_run(project, "hid-cccccc", "slurm", 1, 5, job_id="83")
    slurm = FakeSlurm(tmp_path)
    slurm.say("squeue", "true")
    end = int(time.time() - HOUR)
    slurm.say("sacct", f"echo '81|COMPLETED|{end - 36000}|{end}|1|2|billing=2,cpu=2,gres/gpu=2,node=1'")
    path = f"{slurm.bin}:{os.environ['PATH']}"
    sacct = facts(project, PATH=path)["sacct"]
    assert isinstance(sacct, dict)
    assert (sacct["events"], sacct["unknown"]) == (pytest.approx(20, 1e-3), {"hid-cccccc": pytest.approx(10, 1e-3)})
    done = project.xgen("usage", "--cluster", "batch", env={"PATH": path, "COLUMNS": "80"})
    said, *more = done.stdout.splitlines()[-2:]
    assert said.startswith("sacct has 20 GPU-hours of the same jobs, ")
    assert more == ["sacct shows no job of 1 run (10 GPU-hours): hidden from you, or forgotten"]


def test_a_cluster_without_gpus_has_cpu_hours_and_csv_has_numbers_alone(project: Project) -> None:
    make_run(project, "one-aaaaaa", "local", 1, 10)
    (project.runs / "one-aaaaaa" / "local").mkdir()
    done = project.xgen("usage", "--cluster", "local", "--by", "run,lost", "--csv")
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    assert row == {"run": "one-aaaaaa", "lost": "useful", "runs": "1", "cpu_hours": row["cpu_hours"]}
    assert float(row["cpu_hours"]) == pytest.approx(20, rel=1e-3)
    said = project.xgen("usage", "--cluster", "local").stdout
    assert "this cluster has no GPUs to ask for: hours are CPU-hours" in said
    assert "runs of this machine have no accounting" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--by", "users"), "--by: 'users' is not known; write user"),
        (("--by", "phase,lost"), "--by: phase and lost divide the same hours"),
        (("--since", "yesterday"), "--since: 'yesterday' is no time; write e.g. 7d"),
    ],
)
def test_a_mistake_is_one_line(project: Project, arguments: tuple[str, ...], said: str) -> None:
    done = project.xgen("usage", "--cluster", "local", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
