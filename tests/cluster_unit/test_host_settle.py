"""What `settle` of xgen/cluster/host/ says of a run that nobody decided about, by what SLURM knows; the guard job."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cluster_unit.host import Host
from xgen.cluster.host import host_library
from xgen.runs import read_events

FAILED = "JobState=FAILED Restarts=0"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A run whose first attempt, of job 7, has begun."""
    found = Host(tmp_path)
    found.command("sacct", "exit 1")
    found.bash('event started ",\\"nodes\\":\\"n1\\""')
    return found


def settle(host: Host, **keys: Any) -> str:
    return host.bash("settle tester", **keys).stdout.strip()


def names(host: Host) -> list[str]:
    return [name for name, _ in host.said()]


def test_an_attempt_without_an_outcome_is_lost_and_another_follows(host: Host) -> None:
    host.scontrol(FAILED)
    assert settle(host) == "again 0"
    assert (host.outcome().status, host.outcome().failures) == ("lost", 1)
    assert [(e.event, e.action) for e in read_events(host.run)] == [("started", None), ("settled", "tester")]
    assert settle(host) == "again 0"  # whoever was killed before the new job was there
    assert (names(host), host.outcome().failures) == (["started", "settled"], 1)


def test_where_the_ranks_left_a_word_it_counts(host: Host) -> None:
    host.scontrol(FAILED)
    host.ranks(("crashed", "boom", 1), ("crashed", "later", 2))
    assert settle(host) == "again 0"
    assert (host.outcome().status, host.outcome().reason) == ("crashed", "rank 0: boom")


@pytest.mark.parametrize(
    ("ranks", "most", "status", "last"),
    [
        ([("finished", "", 1), ("finished", "", 1)], 3, "finished", "finished"),
        ([("refused", "no such model", 1)], 3, "refused", "failed"),
        ([], 1, "lost", "failed"),
    ],
)
def test_what_ends_the_run_ends_it(
    host: Host, ranks: list[tuple[str, str, float]], most: int, status: str, last: str
) -> None:
    host.scontrol(FAILED)
    host.ranks(*ranks)
    assert settle(host, most=most) == "over"
    assert (host.outcome().status, names(host)) == (status, ["started", "settled", last])
    assert host.run.ended_file.exists()


def test_gpu_hours_that_are_used_up_end_it_too(host: Host) -> None:
    """The attempt's last sign of life is 100 s after its start, on 4 GPUs."""
    log = host.run.attempt_dir(1) / "out.log"
    log.touch()
    subprocess.run(["touch", "-d", "100 seconds", log], check=True)
    host.scontrol(FAILED)
    assert settle(host, budget=390) == "over"
    assert names(host) == ["started", "settled", "failed"]
    assert host.outcome().gpu_seconds >= 396


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETING", "PENDING", "CONFIGURING"])
def test_a_job_that_slurm_has_is_left_alone(host: Host, state: str) -> None:
    host.scontrol(f"JobState={state} Restarts=0")
    assert settle(host) == "running"
    assert names(host) == ["started"]


def test_so_is_one_that_slurm_has_forgotten_and_whose_batch_script_lives(host: Host) -> None:
    host.scontrol("", code=1)
    alive = subprocess.Popen(["flock", host.run.path / ".lock", "sleep", "60"])
    try:
        subprocess.run(["bash", "-c", f"while flock -n {host.run.path}/.lock true; do sleep 0.05; done"], timeout=60)
        assert settle(host) == "running"
    finally:
        subprocess.run(["pkill", "--parent", str(alive.pid)], check=False)
        alive.wait(timeout=60)
    assert settle(host) == "again 0"  # its node went down with it


def test_so_is_a_run_that_somebody_has_submitted_again(host: Host) -> None:
    (host.run.path / "jobs").mkdir()
    host.run.job_file(0).write_text("9\n")
    host.command("scontrol", 'case "$5$4" in 9*) echo "JobState=PENDING x" ;; *) echo "JobState=FAILED x" ;; esac')
    assert settle(host) == "running"
    assert names(host) == ["started"]


def test_a_job_that_a_person_cancelled_stays_so(host: Host) -> None:
    host.scontrol("JobState=CANCELLED Restarts=0")
    assert settle(host) == "over"
    assert (host.outcome().status, names(host)) == ("cancelled", ["started", "settled", "cancelled"])


def test_of_a_job_that_vanished_while_it_waited_slurm_must_say_how(host: Host) -> None:
    host.ranks(("stopped", "", 1), ("stopped", "", 1))
    host.bash("decide")
    host.scontrol("", code=1)
    assert settle(host) == "unknown"  # maybe a person cancelled it
    host.command("sacct", "echo FAILED")
    assert settle(host) == "again 0"
    host.command("sacct", "echo CANCELLED by 0")
    assert settle(host) == "over"
    assert names(host) == ["started", "requeued", "settled", "cancelled"]


def test_what_was_killed_between_its_last_decision_and_the_word_of_it_has_ended(host: Host) -> None:
    host.scontrol(FAILED)
    host.ranks(("crashed", "boom", 1), ("crashed", "", 2))
    host.bash("write_outcome 1 crashed 'rank 0: boom'", most=1)
    assert settle(host, most=1) == "over"
    assert host.said()[-1] == ("failed", "rank 0: boom")
    assert host.run.ended_file.exists()
    host.run.resumed_file.touch()
    os.utime(host.run.resumed_file, (2e9, 2e9))
    assert settle(host, most=1) == "again 0"  # of a person's new job, which is gone


def test_where_slurm_does_not_say_whether_a_newer_job_is_there_it_may_be(host: Host) -> None:
    (host.run.path / "jobs").mkdir()
    host.run.job_file(0).write_text("9\n")
    host.command("scontrol", 'case "$4" in 9) echo "Unable to contact slurm controller" >&2; exit 1 ;; esac')
    assert settle(host) == "running"
    host.command(
        "scontrol", 'case "$4" in 9) echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1 ;; esac'
    )
    assert settle(host) == "again 0"


INVALID = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
OF_ANOTHER = "echo JobId=9 JobName=other-abc234 UserId=root JobState=PENDING Reason=Priority"


@pytest.fixture
def unbegun(host: Host) -> Host:
    """A run whose job 9 waited in the queue; nothing of it has begun."""
    host.run.attempt_dir(1).rmdir()
    (host.run.events_dir / "host.jsonl").unlink()
    (host.run.path / "jobs").mkdir()
    host.run.job_file(0).write_text("9\n")
    return host


def settle_unbegun(host: Host) -> str:
    return host.bash("rmdir $ATTEMPT_DIR; settle tester").stdout.strip()


@pytest.mark.parametrize("record", [INVALID, OF_ANOTHER])
@pytest.mark.parametrize("accounted", ["", "PENDING", "NODE_FAIL", "TIMEOUT"])
def test_a_job_that_a_killed_controller_has_forgotten_before_it_began_is_submitted_again(
    unbegun: Host, record: str, accounted: str
) -> None:
    """Its number may be another's by now."""
    unbegun.command("scontrol", record)
    unbegun.command("sacct", f"case $* in *--name=demo-abc234*) echo {accounted} ;; *) echo CANCELLED ;; esac")
    for _ in range(3):  # each time it is lost again
        assert settle_unbegun(unbegun) == "again 0"
    assert settle_unbegun(unbegun) == "unknown"
    assert [(e.event, e.reason) for e in read_events(unbegun.run)] == [
        ("settled", "job 9 was lost before it began")
    ] * 3  # fmt: skip


@pytest.mark.parametrize(
    ("record", "accounting", "answer"),
    [
        (INVALID, "exit 1", "unknown"),  # no accounting: maybe a person cancelled it
        ("exit 1", "echo PENDING", "running"),  # the controller does not answer
        (INVALID, "echo FAILED", "unknown"),  # before the batch script could say anything: the next would, too
        ("echo JobName=demo-abc234 JobState=PENDING", "exit 1", "running"),
    ],
)
def test_of_one_that_has_not_begun_slurm_must_say_that_nobody_took_it_away(
    unbegun: Host, record: str, accounting: str, answer: str
) -> None:
    unbegun.command("scontrol", record)
    unbegun.command("sacct", accounting)
    assert settle_unbegun(unbegun) == answer
    assert names(unbegun) == []


def test_one_whose_number_nobody_noted_is_left_alone(unbegun: Host) -> None:
    unbegun.run.job_file(0).unlink()
    unbegun.command("scontrol", "echo No jobs in the system")
    unbegun.command("sacct", "echo PENDING")
    assert settle_unbegun(unbegun) == "unknown"


def test_one_that_was_cancelled_before_it_began_stays_so(unbegun: Host) -> None:
    unbegun.command("scontrol", INVALID)
    unbegun.command("sacct", "echo CANCELLED by 0")
    assert settle_unbegun(unbegun) == "over"
    assert names(unbegun) == ["settled", "cancelled"]


def test_a_stage_whose_job_was_lost_before_it_began_is_submitted_again(host: Host) -> None:
    host.ranks(("finished", "", 1), ("finished", "", 1))
    host.bash("decide", last=1)
    (host.run.path / "jobs").mkdir()
    host.run.job_file(1).write_text("9\n")
    host.command("scontrol", OF_ANOTHER)
    host.command("sacct", "echo PENDING")
    assert settle(host, stage=1, last=1) == "again 0"
    host.command("scontrol", INVALID)
    host.command("sacct", "echo CANCELLED")  # SLURM itself, since what it waited for had not ended well
    assert settle(host, stage=1, last=1) == "again 0"
    host.scontrol("JobState=CANCELLED Reason=DependencyNeverSatisfied")
    assert settle(host, stage=1, last=1) == "again 0"
    host.scontrol("JobState=CANCELLED Reason=Dependency")  # a person
    assert settle(host, stage=1, last=1) == "over"


def test_a_job_of_a_resumed_run_that_was_lost_before_it_began_is_submitted_again(host: Host) -> None:
    host.ranks(("refused", "no such file", 1))
    host.bash("decide")
    (host.run.path / "jobs").mkdir()
    host.run.job_file(0).write_text("9\n")
    host.command("scontrol", INVALID)
    host.command("sacct", "true")
    assert settle(host) == "over"
    os.utime(host.run.attempt_dir(1) / "outcome.json", (1, 1))
    (host.run.path / "resumed").touch()
    assert settle(host) == "again 0"


def test_what_was_submitted_over_a_week_ago_may_have_been_cancelled_by_a_person(unbegun: Host) -> None:
    unbegun.command("scontrol", INVALID)
    unbegun.command("sacct", "true")
    os.utime(unbegun.run.job_file(0), (1, 1))
    assert settle_unbegun(unbegun) == "unknown"
    assert names(unbegun) == []


def test_of_an_array_whose_shards_ended_in_several_ways_the_whole_says_nothing(unbegun: Host) -> None:
    unbegun.command("scontrol", INVALID)
    unbegun.command("sacct", "echo PENDING; echo CANCELLED by 0")
    assert settle_unbegun(unbegun) == "unknown"


def test_a_requeued_job_that_is_lost_again_and_again_is_not_submitted_without_end(host: Host) -> None:
    host.ranks(("stopped", "", 1), ("stopped", "", 1))
    host.bash("decide")
    host.command("scontrol", INVALID)
    host.command("sacct", "echo PENDING")
    assert [settle(host, most=2) for _ in range(3)] == ["again 0", "again 0", "unknown"]


def test_a_number_that_another_job_has_got_says_nothing_of_an_attempt_that_was_to_follow(host: Host) -> None:
    host.ranks(("stopped", "", 1), ("stopped", "", 1))
    host.bash("decide")
    host.command("scontrol", OF_ANOTHER)
    host.command("sacct", "case $* in *--name=demo-abc234*) echo REQUEUED ;; *) echo PENDING ;; esac")
    assert settle(host) == "again 0"


@pytest.fixture
def guarded(host: Host) -> Host:
    """Stage `broad` of two, whose job 7 has died; SLURM has removed job 8 of the next stage."""
    jobs = host.run.path / "jobs"
    jobs.mkdir()
    for name, job in (("0", 7), ("0.guard", 71), ("1", 8), ("1.guard", 81)):
        (jobs / name).write_text(f"{job}\n")
    host.bash('event started ",\\"nodes\\":\\"n1\\",\\"stage\\":\\"broad\\""')
    (host.run.events_dir / "host.jsonl").write_text(
        (host.run.events_dir / "host.jsonl").read_text().splitlines()[-1] + "\n"
    )
    (host.run.attempt_dir(1) / "sbatch.sh").touch()
    host.command("squeue", f"cat {host.run.path}/queue 2>/dev/null; true")
    host.command(
        "scontrol",
        f'case "$1" in update) echo "$*" >>{host.run.path}/calls; case "$2" in *=8|*=71) exit 1 ;; esac ;; '
        '*) echo "JobState=FAILED x" ;; esac',
    )
    host.command(
        "sbatch", f'echo "sbatch $*" >>{host.run.path}/calls; expr 20 + $(grep -c sbatch {host.run.path}/calls)'
    )
    host.library.write_text(host_library() + (Path(host_library.__code__.co_filename).parent / "guard.sh").read_text())
    return host


def test_the_guard_submits_the_job_and_what_waited_for_it_and_guards_for_both(guarded: Host) -> None:
    run = guarded.run.path
    done = guarded.bash("SLURM_JOB_ID=71; guard", last=1, name="broad")
    assert done.returncode == 0, done.stderr
    script = guarded.run.attempt_dir(1) / "sbatch.sh"
    assert [call for call in guarded.calls() if call.startswith("sbatch")] == [
        f"sbatch --parsable --dependency=afterany:7 --comment=stage:broad after:7:1 {script}",
        f"sbatch --parsable --dependency=afternotok:21 {run}/jobs/0.guard.sh",
        f"sbatch --parsable --dependency=afterok:21 {run}/jobs/1.sh",
        f"sbatch --parsable --dependency=afternotok:23 {run}/jobs/1.guard.sh",
    ]
    assert [(run / "jobs" / name).read_text() for name in ("0", "0.guard", "1", "1.guard")] == [
        "21\n", "22\n", "23\n", "24\n",
    ]  # fmt: skip
    settled = next(e for e in read_events(guarded.run) if e.event == "settled")
    assert settled.action == "guard job 71"


@pytest.mark.parametrize("queue", ["9 RUNNING None", "9 PENDING Priority"])
def test_a_guard_leaves_a_run_alone_that_goes_on(guarded: Host, queue: str) -> None:
    (guarded.run.path / "queue").write_text(queue + "\n")
    assert guarded.bash("guard", last=1, name="broad").returncode == 0
    assert (guarded.calls(), names(guarded)) == ([], ["started"])


def test_a_guard_that_waited_until_slurm_forgot_the_job_does_not_fail_the_run(guarded: Host) -> None:
    guarded.command(
        "sbatch",
        f'echo "sbatch $*" >>{guarded.run.path}/calls; case "$*" in *afterany:7*) '
        "echo 'sbatch: error: Batch job submission failed: Job dependency problem' >&2; exit 1 ;; esac; "
        f"expr 20 + $(grep -c sbatch {guarded.run.path}/calls)",
    )
    done = guarded.bash("SLURM_JOB_ID=71; guard", last=1, name="broad")
    assert (done.returncode, names(guarded)[-2:]) == (0, ["queued", "queued"]), done.stderr
    assert "afterany" not in [call for call in guarded.calls() if call.startswith("sbatch")][1]


def test_a_guard_of_another_stage_does_nothing(guarded: Host) -> None:
    assert guarded.bash("guard", stage=1, last=1, name="anneal").returncode == 0
    assert (guarded.calls(), names(guarded)) == ([], ["started"])


def test_a_guard_to_whom_the_scheduler_does_not_speak_does_nothing(guarded: Host) -> None:
    guarded.command("squeue", "exit 1")
    done = guarded.bash("SECONDS=500; guard", last=1, name="broad")
    assert (done.returncode, guarded.calls(), names(guarded)) == (1, [], ["started"])


def test_every_event_of_the_settling_is_one_line_of_json(host: Host) -> None:
    host.scontrol(FAILED)
    host.bash("settle 'a \"quoted\" name'")
    lines = [json.loads(line) for line in (host.run.events_dir / "host.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["started", "settled"]
