"""What ended without a decision is settled once, as the batch script would have, and by nobody while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Barrier

import pytest

from tests.cluster_unit.conftest import (
    Bench,
    assert_all_gone,
    batch_script,
    events,
    exit_code,
    processes,
    state,
    status,
    steps,
    supervisor,
    tell,
    wait_for,
    wait_for_steps,
    wait_until,
)
from tests.conftest import xgen
from xgen.cluster.settle import is_not_launched, settle
from xgen.cluster.slurm import QueueRow, SchedulerError
from xgen.cluster.status import QueueView
from xgen.runs import AttemptOutcome, RunDir, read_attempt_outcome, read_events, replay, write_atomic
from xgen.spec import Command, Partition, Profile, Resources

ONE = {"gpus_per_node": 1}
NOBODY = QueueView(None)
SETTLE = """
import sys
from pathlib import Path
from xgen.cluster.settle import settle
from xgen.cluster.status import QueueView
from xgen.runs import RunDir
print(settle(RunDir(Path(sys.argv[1])), QueueView(None), "racer"))
"""


def killed(bench: Bench, *arguments: object, **keys: object) -> RunDir:
    """A run whose batch script was killed with -9 after some steps, and one checkpoint at least."""
    run = bench.count(60, "--step", 0.05, "--every", 2, *arguments, resources=ONE, **keys)
    wait_until(run.checkpoint_steps, lambda: tell(run))
    os.kill(batch_script(run), signal.SIGKILL)
    exit_code(run)
    assert_all_gone(run)
    assert (state(run), status(run, 1)) == ("lost", "none")
    return run


def test_a_killed_batch_script_is_found_by_the_next_command_and_the_run_goes_on(bench: Bench) -> None:
    run = killed(bench, restart={"max_failures": 2})
    said = xgen("status", run.name, "--cluster", str(bench.path / "local.yaml"))
    assert said.returncode == 0, said.stderr
    assert f"{run.name} had ended without a decision; it goes on as job " in said.stderr
    assert said.stdout.startswith(f"{run.name}  running\n")
    wait_for(run, "finished")
    assert (status(run, 1), status(run, 2)) == ("lost", "finished")
    assert [(e.reason, e.action) for e in events(run, "settled")] == [
        ("attempt 1 ended without a decision", "xgen status")
    ]
    assert replay(read_events(run)).restarts["lost"] == 1
    second = [step for step, attempt in steps(run) if attempt == 2]
    assert second[0] > 1  # from its checkpoint
    assert second[-1] == 60


def test_settling_counts_the_failure_and_ends_the_run_as_the_batch_script_would(bench: Bench) -> None:
    run = killed(bench, restart={"max_failures": 1})
    said = settle(run, NOBODY, "a test")
    assert said == (
        f"{run.name} had ended without a decision; it is failed now: no outcome: the batch script was killed or its "
        "node was lost"
    )
    assert (state(run), run.last_attempt()) == ("failed", 1)
    assert settle(run, NOBODY, "a test") is None


def test_work_that_had_finished_when_the_batch_script_was_killed_has_finished(bench: Bench) -> None:
    run = killed(bench, restart={"max_failures": 2})
    (run.attempt_dir(1) / "outcome.0.json").write_text('{"status":"finished","reason":"","step":60,"time":1.0}\n')
    assert settle(run, NOBODY, "a test") == f"{run.name} had ended without a decision; it is finished now"
    assert events(run, "requeued") == []


def test_a_run_that_is_alive_is_not_settled(bench: Bench) -> None:
    run = bench.count(500, "--step", 0.05, resources=ONE)
    wait_for_steps(run, 2)
    assert settle(run, NOBODY, "a test") is None
    (run.path / "local/pid").rename(
        run.path / "local/pid.aside"
    )  # as a controller that lost its state: it knows no job
    assert state(run) == "lost"
    assert settle(run, NOBODY, "a test") is None  # its batch script holds the lock
    (run.path / "local/pid.aside").rename(run.path / "local/pid")
    assert events(run, "settled") == []


def test_of_many_who_settle_at_once_some_of_them_killed_one_does(bench: Bench) -> None:
    run = killed(bench, restart={"max_failures": 3})
    racers = [
        subprocess.Popen([sys.executable, "-c", SETTLE, str(run.path)], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    for number, racer in enumerate(racers[:3]):  # at bad moments
        time.sleep(0.25 * number)
        racer.kill()
    said = [racer.communicate(timeout=120)[0].strip() for racer in racers]
    wait_until(lambda: state(run) != "lost" or settle(run, NOBODY, "the last"), lambda: tell(run))
    wait_for(run, "finished")
    assert run.last_attempt() == 2, (said, tell(run))
    assert len(events(run, "started")) == 2
    assert sum("goes on" in one for one in said) <= 1


def test_one_who_was_killed_after_the_decision_leaves_the_job_to_the_next(bench: Bench) -> None:
    run = killed(bench, restart={"max_failures": 3})
    from xgen.cluster import settle as part

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part, "resubmit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            settle(run, NOBODY, "one")
    assert (status(run, 1), state(run)) == ("lost", "lost")
    assert "goes on as job" in (settle(run, NOBODY, "another") or "")
    wait_for(run, "finished")
    outcome = read_attempt_outcome(run, 1)
    assert outcome is not None
    assert (outcome.failures, run.last_attempt(), len(events(run, "settled"))) == (1, 2, 1)


def test_a_stage_whose_end_nobody_had_said_is_followed_by_the_next_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM has removed the job of the next stage, as that of this one ended badly."""
    from xgen.cluster import settle as part

    run = RunDir(tmp_path / "demo-abc234")
    run.create()
    run.attempt_dir(1).mkdir()
    ended = AttemptOutcome(status="stage_finished", time=1).model_dump_json()

    def decide(*_: object) -> str:
        write_atomic(run.attempt_dir(1) / "outcome.json", ended)
        return "over"

    monkeypatch.setattr(part, "_decide", decide)
    monkeypatch.setattr(part, "resubmit", lambda *_, **__: ["9"])
    job = Command(kind="command", name="demo", command=["w"], resources=Resources.model_validate({"time": "1h"}))
    profile = Profile(run_root=str(tmp_path), partitions={"gpu": Partition()})
    assert "; it goes on as job 9" in (part._settle(run, job, profile, "a test", 0) or "")
    # The next one's job may have been there, and cancelled by a person.
    assert "goes on as job" not in (part._settle(run, job, profile, "a test", 0) or "")


def test_shards_do_not_wait_for_each_other_s_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xgen.cluster import settle as part

    run = RunDir(tmp_path / "demo-abc234")
    run.create()
    for shard in range(4):
        run.shard("", shard).path.mkdir(parents=True)
    all_at_it = Barrier(4)

    def decide(*given: object) -> str:
        all_at_it.wait(60)
        return f"again {given[-1]}"

    waits = []
    monkeypatch.setattr(part, "_decide", decide)
    monkeypatch.setattr(part, "resubmit", lambda *_, wait: waits.append(wait) or ["9"])
    job = Command.model_validate(
        {"kind": "command", "name": "demo", "command": ["w"], "resources": {"time": "1h"}, "array": {"shards": 4}}
    )
    part._settle(run, job, Profile(run_root=str(tmp_path), partitions={"gpu": Partition()}), "a test", 0)
    assert waits == [3]


def test_a_run_that_cannot_be_submitted_again_stays_lost_and_the_exporter_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xgen.cluster import settle as part
    from xgen.metrics.fleet import settling

    run = RunDir(tmp_path / "demo-abc234")
    run.create()
    run.attempt_dir(1).mkdir()

    def refuse(*_: object, **__: object) -> list[str]:
        raise SchedulerError("Invalid account")

    monkeypatch.setattr(part, "_decide", lambda *_: "again 0")
    monkeypatch.setattr(part, "resubmit", refuse)
    job = Command(kind="command", name="demo", command=["w"], resources=Resources.model_validate({"time": "1h"}))
    profile = Profile(run_root=str(tmp_path), partitions={"gpu": Partition()})
    monkeypatch.setattr(settling, "settle", lambda run, *_: part._settle(run, job, profile, "exporter", 0))
    exporter = settling.Settling(tmp_path, lambda: {run.name: "lost"}, acts=True)
    (metric,) = exporter.poll()
    said = f"{run.name} had ended without a decision, and could not be submitted again: Invalid account"
    assert exporter.left == {run.name: said}
    assert metric.samples[0].value == 0


@pytest.mark.parametrize(
    ("state", "reason", "held"),
    [
        ("PENDING", "launch failed requeued held", True),
        ("REQUEUE_HOLD", "JobLaunchFailure", True),
        (
            "COMPLETING",
            "JobLaunchFailure",
            False,
        ),  # its batch script was killed: that is for the decision (seen in 22.05)
        ("PENDING", "JobHeldUser", False),
    ],
)
def test_a_job_that_its_node_could_not_start_is_told_from_one_that_ends(state: str, reason: str, held: bool) -> None:
    assert is_not_launched(QueueRow("7", "demo-abc234", state, reason, "gpu", "", "N/A", "0")) is held


def test_what_a_person_cancelled_stays_so(bench: Bench) -> None:
    run = killed(bench, restart={"max_failures": 3})
    run.cancelled_file.touch()
    assert settle(run, NOBODY, "a test") is None
    assert state(run) == "cancelled"


def test_shards_are_settled_alone_and_one_array_takes_them_up(bench: Bench) -> None:
    run = bench.submit(
        ["sh", "-c", '[ "$XGEN_SHARD" != 1 ] || [ "$XGEN_ATTEMPT" -gt 1 ] || sleep 300'],
        array={"shards": 3}, resources=ONE, restart={"max_failures": 2},
    )  # fmt: skip
    wait_until(lambda: processes(run.shard("", 1), "sleep"), lambda: tell(run))
    os.kill(supervisor(run), signal.SIGKILL)
    exit_code(run)
    wait_until(lambda: state(run) == "lost", lambda: tell(run))
    assert "goes on as job" in (settle(run, NOBODY, "a test") or "")
    wait_for(run, "finished")
    assert [status(run.shard("", 1), n) for n in (1, 2)] == ["lost", "finished"]
    assert [run.shard("", n).last_attempt() for n in range(3)] == [1, 2, 1]
