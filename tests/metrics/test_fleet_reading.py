"""What the exporter reads of run directories: what was added, whatever is broken, and nothing of old runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.metrics.fake_slurm import FakeSlurm, slurm, value
from tests.metrics.fleet_runs import PRETRAIN, FleetRun, fleet, polled, root, says, state
from xgen.metrics.exporter import CollectorError
from xgen.runs import read_events, replay

__all__ = ["root", "slurm"]


def test_only_what_was_added_is_read(root: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    run = FleetRun(root, "tiny-k3f9ab", PRETRAIN, "81")
    run.trained(now - 900, 100)
    runs = fleet(root, says(slurm, "81 RUNNING"))
    polled(runs)
    read = []
    opened = Path.open

    def tell(path: Path, *args: Any, **keys: Any) -> Any:
        if args != ("a",):  # which is this test
            read.append(path.name)
        return opened(path, *args, **keys)

    monkeypatch.setattr(Path, "open", tell)
    polled(runs)
    assert not [name for name in read if name.endswith((".jsonl", ".yaml"))]
    run.told(now, "progress", step=110)
    assert value(polled(runs), "xgen_run_highest_step", run="tiny-k3f9ab") == 110
    assert [name for name in read if name.endswith(".jsonl")] == ["rank0.jsonl"]


def test_a_file_that_another_node_wrote_is_put_in_its_place_when_it_is_seen(root: Path, slurm: FakeSlurm) -> None:
    now = time.time()
    run = FleetRun(root, "tiny-k3f9ab", PRETRAIN, "81")
    run.told(now - 500, "started")
    run.told(now - 450, "first_step", step=1)
    run.told(now - 100, "started", 2)
    run.told(now - 50, "first_step", 2, step=1)
    runs = fleet(root, says(slurm, "81 RUNNING"))
    before = polled(runs)
    run.told(now - 200, "progress", step=40)  # of the first attempt
    after = polled(runs)
    queued = value(before, "xgen_run_time_seconds_total", run="tiny-k3f9ab", phase="queued")
    assert queued == pytest.approx(350)
    assert value(after, "xgen_run_highest_step", run="tiny-k3f9ab") == 40
    phases = [labels for name, labels in before if name == "xgen_run_time_seconds_total"]
    assert all(after["xgen_run_time_seconds_total", of] >= before["xgen_run_time_seconds_total", of] for of in phases)
    totals = replay(read_events(run.dir)).totals(now - 50)
    ratio = value(after, "xgen_run_effective_time_ratio", run="tiny-k3f9ab")
    assert ratio == pytest.approx(totals["train"] / sum(totals.values()))


def test_what_is_half_written_or_unreadable_is_counted_and_the_rest_is_served(root: Path, slurm: FakeSlurm) -> None:
    now = time.time()
    good, torn, bare = (FleetRun(root, f"{name}-k3f9ab", PRETRAIN, "81") for name in ("good", "torn", "bare"))
    for run in (good, torn, bare):
        run.trained(now - 900, 3)
    bare.dir.job_file(0).write_bytes(b"\xff81\n")
    torn.write("rank0", '{"time":12,"run":"to\n')
    torn.write("rank0", '{"time":99')
    bare.dir.spec_file.write_text("kind: [")
    gone = FleetRun(root, "gone-k3f9ab", PRETRAIN, "81")
    gone.dir.events_dir.rmdir()
    gone.dir.events_dir.touch()  # no folder: whoever reads it gets an error
    (root / "no-run").mkdir()
    (root / "a-file-abc234").touch()
    series = polled(fleet(root, says(slurm, "81 RUNNING")))
    counts = {dict(labels)["state"]: v for (name, labels), v in series.items() if name == "xgen_run_directories"}
    assert counts == {"served": 3, "left_out": 0, "unreadable": 1}
    assert value(series, "xgen_run_event_lines_skipped") == 1
    for run in (good, torn, bare):
        assert value(series, "xgen_run_highest_step", run=run.dir.name) == 3
    assert value(series, "xgen_run_planned_steps", run="bare-k3f9ab") is None
    torn.write("rank0", "\n")
    torn.told(now, "progress", step=4)
    assert value(polled(fleet(root, says(slurm))), "xgen_run_highest_step", run="torn-k3f9ab") == 4


def test_a_run_that_ended_a_week_ago_is_left_out_and_not_read_until_it_is_resumed(root: Path, slurm: FakeSlurm) -> None:
    now, week = time.time(), 7 * 86400
    old, young = (FleetRun(root, f"{name}-k3f9ab", PRETRAIN, "81") for name in ("old", "young"))
    for run, ended in ((old, now - week - 60), (young, now - week + 60)):
        run.told(ended - 300, "submitted", 0)
        run.trained(ended - 100, 3)
        run.told(ended, "finished")
    queue = says(slurm)
    runs = fleet(root, queue)
    series = polled(runs)
    assert {dict(labels)["run"] for name, labels in series if name == "xgen_run_info"} == {"young-k3f9ab"}
    assert value(series, "xgen_run_directories", state="left_out") == 1
    (old.dir.events_dir / "rank0.jsonl").write_text("{}\n")  # would be counted
    assert value(polled(runs), "xgen_run_event_lines_skipped") == 0
    old.told(now, "queued", 1, writer="client", reason="resumed")
    says(slurm, "81 PENDING Priority", queue=queue)
    series = polled(runs)
    assert state(series, "old-k3f9ab") == ["queued"]
    assert value(series, "xgen_run_directories", state="left_out") == 0


def test_a_run_that_ended_a_while_ago_is_read_again_once_it_is_resumed(root: Path, slurm: FakeSlurm) -> None:
    now = time.time()
    run = FleetRun(root, "tiny-k3f9ab", PRETRAIN, "81")
    run.told(now - 5000, "submitted", 0)
    run.trained(now - 4900, 3)
    run.told(now - 4000, "finished")
    queue = says(slurm)
    runs = fleet(root, queue)
    assert state(polled(runs), "tiny-k3f9ab") == ["finished"]
    run.write("rank0", "no event\n")
    assert value(polled(runs), "xgen_run_event_lines_skipped") == 0  # nobody looked
    run.told(now - 60, "queued", 1, writer="client", reason="resumed")
    says(slurm, "82 RUNNING", queue=queue)
    run.dir.job_file(0).unlink()
    run.dir.job_file(0).write_text("82\n")
    run.told(now - 30, "started", 2)
    series = polled(runs)
    assert state(series, "tiny-k3f9ab") == ["running"]
    assert value(series, "xgen_run_event_lines_skipped") == 1
    # What lies between is nobody's time.
    queued = value(series, "xgen_run_time_seconds_total", run="tiny-k3f9ab", phase="queued")
    assert queued == pytest.approx(100 + 30)


def test_a_run_that_is_removed_is_gone(root: Path, slurm: FakeSlurm) -> None:
    run = FleetRun(root, "tiny-k3f9ab", PRETRAIN, "81")
    run.told(time.time() - 100, "started")
    runs = fleet(root, says(slurm, "81 RUNNING"))
    assert state(polled(runs), "tiny-k3f9ab") == ["running"]
    run.dir.path.rename(root / ".trash")
    assert state(polled(runs), "tiny-k3f9ab") == []


def test_a_run_root_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(CollectorError, match="nowhere: No such file") as caught:
        list(fleet(tmp_path / "nowhere").poll())
    assert caught.value.reason == "missing"
