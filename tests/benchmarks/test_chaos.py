"""The campaign's own parts: what is planned, the job that is disturbed, and the eye that finds what is wrong."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.alarms.lab import Lab
from benchmarks.chaos.__main__ import Report
from benchmarks.chaos.campaign import Campaign, Injection, Live
from benchmarks.chaos.chain import value_after
from benchmarks.chaos.judge import JobRecord, chain_rows, resumptions, wrongs
from benchmarks.chaos.plan import Planned, cluster_faults, plan
from tests.conftest import ROOT
from xgen.runs import EventWriter, RunDir, read_events


def test_a_seed_is_a_plan() -> None:
    runs = plan(3, 200, 30, 40)
    assert runs == plan(3, 200, 30, 40) != plan(4, 200, 30, 40)
    assert [sum(one.kind == kind for one in runs) for kind in ("command", "training")] == [200, 30]
    assert {fault for one in runs for fault, _ in one.faults} == {
        "signal", "kill rank", "kill batch", "hang", "time limit", "NaN", "crash"
    }  # fmt: skip
    for one in runs:
        steps = [step for _, step in one.faults]
        assert steps == sorted(steps) and all(0 < step < one.steps for step in steps)
    assert len({fault for _, fault, _ in itertools.islice(cluster_faults(0), 9)}) == 7


def chain(run: RunDir, attempt: int, *options: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "XGEN_RUN_DIR": str(run.path), "XGEN_RANK": "0", "XGEN_ATTEMPT": str(attempt)}
    command = [sys.executable, str(ROOT / "benchmarks/chaos/chain.py"), "60", "--step", "0.02", *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def until_step(run: RunDir, step: int) -> None:
    deadline = time.monotonic() + 60
    while not any(row.step >= step for row in chain_rows(run)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def new_run(folder: Path, name: str = "chain-0-abc234") -> RunDir:
    run = RunDir(folder / name)
    run.create()
    return run


def test_a_chain_that_is_killed_stopped_and_spoilt_comes_to_the_same_value(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    killed = chain(run, 1)
    until_step(run, 23)
    killed.kill()
    assert killed.wait(60) == -signal.SIGKILL
    (run.checkpoints_dir / "step-20/value").write_text("spoilt")  # the one before it counts then
    stopped = chain(run, 2)
    until_step(run, 30)
    stopped.send_signal(signal.SIGUSR2)
    assert stopped.wait(60) == 75
    assert chain(run, 3).wait(60) == 0
    assert (run.path / "result").read_text() == value_after(60)
    assert [row.step for row in chain_rows(run) if row.what == "resumed"][1] == 10


def ended(run: RunDir, planned: Planned, state: str = "finished") -> Campaign:
    campaign = Campaign(Lab.__new__(Lab), [], Path())
    campaign.live[run.name] = Live(planned, run, [], state)
    return campaign


def test_a_run_that_is_as_it_should_be_has_nothing_wrong(tmp_path: Path) -> None:
    run, planned = new_run(tmp_path), Planned(0, "command", 60, ())
    (run.path / "result").write_text(value_after(60))
    records = [JobRecord("7", run.name, "REQUEUED", 10, 20), JobRecord("8", run.name, "COMPLETED", 20, 30)]
    assert wrongs(ended(run, planned), None, records) == []


@pytest.mark.parametrize(
    ("state", "result", "spans", "said"),
    [
        ("lost", "", [(10, 20)], "lost, expected finished"),
        ("finished", "", [(10, 20)], "came to nothing"),
        ("finished", value_after(59), [(10, 20)], "not what undisturbed ones do"),
        ("finished", value_after(60), [(10, 20), (15, 30)], "job 2 started before job 1 had ended"),
        ("finished", value_after(60), [], "SLURM knows no job of it"),
    ],
)
def test_what_is_wrong_is_found(
    tmp_path: Path, state: str, result: str, spans: list[tuple[float, float]], said: str
) -> None:
    run = new_run(tmp_path)
    if result:
        (run.path / "result").write_text(result)
    records = [JobRecord(str(n), run.name, "COMPLETED", *span) for n, span in enumerate(spans, start=1)]
    (found,) = wrongs(ended(run, Planned(0, "command", 60, ()), state), None, records)
    assert found.startswith(run.name) and said in found


@pytest.mark.parametrize(("after", "wrong"), [(1, 0), (-1, 1)], ids=["said-it-had-ended", "has-begun-again"])
def test_a_job_that_the_controller_forgot_has_ended_when_its_batch_script_said_so(
    tmp_path: Path, after: int, wrong: int
) -> None:
    run = new_run(tmp_path)
    (run.path / "result").write_text(value_after(60))
    exited = EventWriter(run, "host", 1, "7").write("exited", exit_code=0).time
    records = [
        JobRecord("7", run.name, "RUNNING", exited - after, None),
        JobRecord("8", run.name, "COMPLETED", exited + 10, exited + 20),
    ]
    found = wrongs(ended(run, Planned(0, "command", 60, ())), None, records)
    assert found == [f"{run.name}: job 8 started before job 7 had ended"] * wrong


@pytest.mark.parametrize(
    ("state", "start", "wrong"), [("CANCELLED by 0", 10, 0), ("PENDING", None, 0), ("COMPLETED", 10, 1)]
)
def test_what_a_refused_submission_left_may_not_run(
    tmp_path: Path, state: str, start: float | None, wrong: int
) -> None:
    run = new_run(tmp_path)
    (run.path / "result").write_text(value_after(60))
    records = [JobRecord("7", run.name, "COMPLETED", 10, 20), JobRecord("8", "chain-9-aaaaaa", state, start, 20)]
    found = wrongs(ended(run, Planned(0, "command", 60, ())), None, records)
    assert found == ["chain-9-aaaaaa is no run of the campaign, and its job 8 ran: COMPLETED"] * wrong


def test_a_checkpoint_that_was_durable_and_not_taken_is_found_and_a_restart_is_timed(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    (run.path / "result").write_text(value_after(60))
    for attempt, outcome in ((1, {"status": "stopped", "durable_step": 20}), (2, {"status": "finished"})):
        run.attempt_dir(attempt).mkdir()
        text = json.dumps({"time": 5.0, **outcome})
        (run.attempt_dir(attempt) / "outcome.json").write_text(text)
    writer = EventWriter(run, "host", 1, "7")
    exited = writer.write("exited", exit_code=0).time
    writer.write("requeued", reason="preempted")
    (run.path / "steps.0").write_text(f"10 2 {exited + 6} resumed\n11 2 {exited + 7} step\n")
    campaign = ended(run, Planned(0, "command", 60, ()))
    assert wrongs(campaign, None, [JobRecord("7", run.name, "COMPLETED", 1, 2)]) == [
        f"{run.name}: attempt 2 began at step 10, and step 20 was durable"
    ]
    (resumed,) = resumptions(campaign.live[run.name], [])
    assert resumed.why == "preempted"
    assert resumed.seconds == pytest.approx(7, abs=0.01)


def test_a_restart_is_the_fault_s_that_ended_the_attempt_also_where_nobody_saw_it_end(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    for attempt in (1, 2, 3):
        run.attempt_dir(attempt).mkdir()
        EventWriter(run, "host", attempt, "7").write("started", nodes="n1")
        if attempt == 2:
            (run.attempt_dir(2) / "outcome.json").write_text('{"status": "crashed", "time": 5.0}')
            time.sleep(0.05)
            ended = EventWriter(run, "host", 2, "7").write("exited", exit_code=1).time
        time.sleep(0.05)
    began = [event.time for event in read_events(run) if event.event == "started"]
    (run.path / "steps.0").write_text(f"1 2 {began[1] + 4} step\n1 3 {ended + 9} step\n")
    injections = [
        Injection("disk full", began[1] + 0.01, (run.name,)), Injection("kill batch", began[0] + 0.01, (run.name,)),
        Injection("kill rank", began[1] + 0.02, ("chain-8-other0",)),
    ]  # fmt: skip
    first, second = resumptions(Live(Planned(0, "command", 60, ()), run, []), injections)
    assert first.why == "kill batch" and first.seconds == pytest.approx(began[1] + 4 - began[0] - 0.01, abs=0.01)
    assert second.why == "crashed" and second.seconds == pytest.approx(9, abs=0.01)


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ({1: "0x1", 2: "0x2", 3: "0x3"}, ""),
        ({1: "0x1"}, "no record of 2 steps, the first of step 2"),
        ({1: "0x1", 2: "0x7", 3: "0x3"}, "another loss than the undisturbed one's at 1 steps, the first at step 2"),
    ],
)
def test_a_training_is_held_to_the_undisturbed_one_step_by_step(
    tmp_path: Path, losses: dict[int, str], said: str
) -> None:
    def trained(name: str, losses: dict[int, str]) -> RunDir:
        run = new_run(tmp_path, name)
        lines = (json.dumps({"step": step, "loss_hex": loss}) + "\n" for step, loss in losses.items())
        (run.metrics_dir / "steps.jsonl").write_text("".join(lines))
        return run

    run, reference = trained("train-0-abc234", losses), trained("train-9-abc234", {1: "0x1", 2: "0x2", 3: "0x3"})
    records = [JobRecord("7", run.name, "COMPLETED", 10, 20)]
    found = wrongs(ended(run, Planned(0, "training", 3, ())), reference, records)
    assert found == ([f"{run.name}: {said}"] if said else [])


def test_a_report_says_the_same_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report({"runs": 2}, {"signal": (3, 2)}, {"signal, command": [1.0, 3.0]}, {"requeue": [7.5]}, ["x is lost"])
    report.print(as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["met"] == {"not as they should be": False}
    assert document["resume"]["signal, command"] == {"count": 2, "median": 2.0, "p95": pytest.approx(2.9)}
    report.print(as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["signal", "3", "2"] in lines
    assert document["peers"]["SLURM alone, requeue"] == {"count": 1, "median": 7.5, "p95": 7.5}
    assert ["signal,", "command", "2", "2.0", "2.9"] in lines
    assert ["SLURM", "alone,", "requeue", "1", "7.5", "7.5"] in lines
    assert lines[-1] == ["WRONG", "x", "is", "lost"]


def test_a_folder_that_is_there_is_refused_before_the_hour_and_not_after_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.chaos", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert f"--out: {tmp_path} is there already" in done.stderr
