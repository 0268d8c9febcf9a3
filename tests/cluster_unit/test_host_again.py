"""How the batch script goes on: a requeue or a successor, after which back-off, and when no more."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.cluster_unit.host import Host, decided
from xgen.runs import EventWriter, read_events


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_slurm_having_requeued_it_already_is_fine(host: Host) -> None:
    host.ranks(("stopped", "", 1), ("stopped", "", 1))
    host.scontrol(answer="Job is pending execution for job 7", code=1)
    assert decided(host) == (75, "stopped", ["requeued"])


def test_a_controller_that_is_away_for_a_while_costs_a_wait_and_not_the_run(host: Host) -> None:
    host.ranks(("stopped", "", 1.0))
    host.scontrol(answer="Unable to contact slurm controller", code=1)
    done = host.bash("SECONDS=3598; decide", tasks=1)
    assert done.returncode == 1  # at its time limit: status says lost, xgen resume goes on
    assert done.stderr.count("cannot requeue yet") > 5
    assert [name for name, _ in host.said()] == ["requeued"]
    assert host.outcome().status == "stopped"


def stopped(host: Host) -> None:
    host.ranks(("stopped", "", 1), ("stopped", "", 1))


def crashed(host: Host, failures: int) -> None:
    """As many failures in a row, the last of which is still to be decided."""
    for number in range(1, failures):
        host.bash(f"write_outcome {number} crashed why", attempt=number)
    host.ranks(("crashed", "why", 1), attempt=failures)


def test_where_requeue_is_disabled_a_successor_waits_for_this_job(host: Host) -> None:
    stopped(host)
    host.scontrol(answer="Requested operation is presently disabled for job 7", code=1)
    host.sbatch()
    assert decided(host) == (75, "stopped", ["requeued", "queued"])
    assert host.said()[-1] == ("queued", "successor of job 7: 8")
    script = host.run.attempt_dir(1) / "sbatch.sh"
    assert host.calls()[-1] == f"sbatch --parsable --dependency=afterany:7 --comment=after:7:1 {script}"


def test_a_successor_gets_what_the_client_gave_and_nothing_of_this_job_s(host: Host) -> None:
    stopped(host)
    host.scontrol(answer="Requested operation is presently disabled for job 7", code=1)
    host.command("sbatch", f"env >'{host.run.path}/environment'; echo 8")
    exported = "SLURM_RESTART_COUNT=3 SLURM_CONF=/etc/s XGEN_STAGE=0 SBATCH_ACCOUNT=us SBATCH_WAIT=1 HOME=/home/a"
    host.bash(f"export {exported}; decide")
    given = dict(line.split("=", 1) for line in (host.run.path / "environment").read_text().splitlines())
    assert {"SLURM_CONF": "/etc/s", "SBATCH_ACCOUNT": "us", "HOME": "/home/a"}.items() <= given.items()
    assert set(given) <= {"SLURM_CONF", "SBATCH_ACCOUNT", "HOME", "PATH", "PWD", "SHLVL", "_", "OLDPWD"}  # sh's own


@pytest.mark.parametrize(
    "record",
    [
        "JobState=COMPLETING Restarts=0 TimeLimit=00:10:00 x",  # at the time limit of the queue, which was shorter
        "JobState=COMPLETING Restarts=0 PreemptTime=2026-01-01T00:00:00",  # PreemptMode=CANCEL
        "JobState=PREEMPTED Restarts=0 PreemptTime=2026-01-01T00:00:00",
        "JobState=TIMEOUT Restarts=0 PreemptTime=None",
    ],
)
def test_where_slurm_says_yes_to_a_requeue_and_does_nothing_a_successor_goes_on(host: Host, record: str) -> None:
    stopped(host)
    host.scontrol(record, obeys=False)
    host.sbatch()
    done = host.bash("SECONDS=590; decide", terminated="1")
    assert (done.returncode, host.outcome().status) == (75, "stopped")
    assert [name for name, _ in host.said()] == ["requeued", "queued"]
    assert host.calls()[0] == "requeue Incomplete 7"
    assert host.calls()[1].startswith("sbatch --parsable --dependency=afterany:7 ")


def test_the_policy_may_want_a_successor_at_once(host: Host) -> None:
    stopped(host)
    host.sbatch()
    assert decided(host, by="successor") == (75, "stopped", ["requeued", "queued"])
    assert [call.partition(" ")[0] for call in host.calls()] == ["sbatch"]
    assert [e.action for e in read_events(host.run)] == ["successor", None]


def test_a_successor_that_was_heard_though_nobody_answered_is_not_submitted_again(host: Host) -> None:
    stopped(host)
    run = host.run.path
    host.command("sbatch", f'echo sbatch >>{run}/calls; echo "Unable to contact slurm controller" >&2; exit 1')
    host.command("squeue", f'[ -e {run}/back ] || {{ touch {run}/back; exit 1; }}; echo "7 x"; echo "31 after:7:1"')
    assert decided(host, by="successor") == (75, "stopped", ["requeued", "queued"])
    assert host.said()[-1] == ("queued", "successor of job 7: 31")
    assert host.calls() == ["sbatch"]


@pytest.mark.parametrize(("failures", "seconds"), [(1, None), (2, 30), (3, 60), (5, 240), (9, 600)])
def test_the_wait_doubles_with_each_failure_in_a_row(host: Host, failures: int, seconds: int | None) -> None:
    crashed(host, failures)
    done = host.bash("decide", attempt=failures, most=20, tasks=1)
    assert done.returncode == 1
    waits = [call for call in host.calls() if call.startswith("update")]
    assert waits == ([] if seconds is None else [f"update JobId=7 StartTime=now+{seconds}"])
    (event,) = [e for e in read_events(host.run) if e.event == "requeued"]
    assert (event.reason, event.seconds, event.action) == ("crashed", seconds, "requeue")


def test_a_successor_waits_too_and_a_stop_never(host: Host) -> None:
    host.sbatch()
    crashed(host, 2)
    assert host.bash("decide", attempt=2, tasks=1, by="successor").returncode == 1
    assert "--begin=now+30" in host.calls()[-1]
    host.ranks(("stopped", "", 1), attempt=3)
    assert host.bash("decide", attempt=3, tasks=1, by="successor").returncode == 75
    assert "--begin" not in host.calls()[-1]


def test_gpu_hours_of_all_attempts_count_and_the_next_is_refused(host: Host) -> None:
    """An attempt that began 100 s ago on 4 GPUs."""
    for attempt in (1, 2):
        host.bash('began() { date +%s.0 -d "100 seconds ago"; }; now() { began; }; event started', attempt=attempt)
        host.ranks(("stopped", "", 1), attempt=attempt)
        done = host.bash("decide", attempt=attempt, tasks=1, budget=700)
        assert done.returncode == (75 if attempt == 1 else 78)
    assert 400 <= host.outcome(1).gpu_seconds < 700
    used = (host.outcome(1).gpu_seconds + host.outcome(2).gpu_seconds) / 3600
    said = host.said()[-1]
    assert said[0] == "failed"
    assert said[1] is not None
    assert f"{int(used * 100) / 100:.2f} GPU-hours are used, and restart.max_gpu_hours is 0.19" in said[1]
    host.run.ended_file.unlink()  # as a person resumes it
    again = host.bash("begin_attempt; echo goes on", attempt=3, budget=700)
    assert (again.returncode, again.stdout, host.outcome(4).status) == (78, "", "refused")
    host.run.ended_file.unlink()
    assert host.bash("begin_attempt", attempt=5, budget=7000).returncode == 0


def test_the_next_attempt_follows_the_newest_and_of_two_at_once_each_has_its_own(host: Host) -> None:
    host.run.attempt_dir(41).mkdir()
    text = """newest_attempt() { echo 41; }  # as both have seen
for _ in 1 2 3 4; do new_attempt "$RUN" & done; wait"""
    assert host.bash('new_attempt "$RUN"').stdout == "42\n"
    assert sorted(host.bash(text).stdout.split()) == ["43", "44", "45", "46"]
    assert host.bash('new_attempt "$RUN/metrics"; echo $?').stdout == "1\n"  # where nothing can be made


RENDEZVOUS = "choose_rendezvous; echo $MASTER_ADDR"


def test_a_controller_that_restarts_as_an_attempt_begins_is_asked_again(host: Host) -> None:
    asked = host.run.path / "asked"
    host.command(
        "scontrol",
        f'case "$2" in hostnames) echo n1 ;; node) echo "$3" >>{asked}; '
        f'[ "$(grep -c . {asked})" -lt 3 ] || echo "NodeName=n1 NodeAddr=10.0.0.7 x" ;; esac',
    )
    assert host.bash(RENDEZVOUS).stdout == "10.0.0.7\n"
    assert asked.read_text() == "n1\n" * 3


def test_one_that_stays_away_is_named_as_the_reason_after_some_minutes(host: Host) -> None:
    host.command("scontrol", '[ "$2" != hostnames ] || echo n1')
    host.bash(f"sleep() {{ SECONDS=$((SECONDS + 60)); }}; {RENDEZVOUS}")
    assert host.outcome().status == "crashed"
    assert re.fullmatch(r"scontrol has not said for 3\d\d s where the job's first node, n1, is", host.outcome().reason)


def began(host: Host, text: str = "") -> tuple[float | None, float]:
    """Since when SLURM counts an attempt that begins now, and when its script says so."""
    done = host.bash(f"{text} begin_attempt")
    assert done.stderr == ""
    started = [event for event in read_events(host.run) if event.event == "started"][-1]
    return started.allocated, started.time


def test_an_attempt_counts_from_slurms_start_of_the_job(host: Host) -> None:
    """Prolog and launch took 200 s, on 4 GPUs."""
    since = int(time.time()) - 200
    host.scontrol(f"JobState=RUNNING SubmitTime=5 StartTime={since} EndTime=9 PreemptTime=None")
    assert began(host)[0] == since
    host.bash("SETTLED_BY=tester; write_outcome 2 lost ''")
    assert 800 <= host.outcome(2).gpu_seconds < 4 * (time.time() - since + 1)


def test_newer_versions_tell_it_without_being_asked(host: Host) -> None:
    since = int(time.time()) - 200
    host.scontrol("JobState=RUNNING StartTime=77 PreemptTime=None")
    assert began(host, f"SLURM_JOB_START_TIME={since};")[0] == since


@pytest.mark.parametrize("record", ["JobState=RUNNING StartTime=Unknown EndTime=9", ""])
def test_where_nobody_says_it_counts_from_its_own(host: Host, record: str) -> None:
    host.scontrol(record)
    assert began(host)[0] is None


def test_the_clock_of_the_controller_may_differ(host: Host) -> None:
    queued = EventWriter(host.run, "client", 0, "7").write("queued").time
    host.scontrol("JobState=RUNNING StartTime=99 PreemptTime=None")
    assert began(host)[0] == int(queued)
    host.scontrol("JobState=RUNNING StartTime=9999999999 PreemptTime=None")
    told, own = began(host)
    assert told is not None
    assert int(queued) <= told <= own


def test_a_time_limit_that_a_long_prolog_shortened_is_no_cancellation(host: Host) -> None:
    record = f"JobState=COMPLETING Restarts=0 TimeLimit=00:05:00 StartTime={int(time.time()) - 290} x"
    host.scontrol(record)
    assert host.bash("begin_attempt; TERMINATED=1; decide").returncode == 75
    assert host.outcome(2).status == "stopped"
    assert ("requeued", "time_limit") in host.said()


def test_a_successor_takes_over_whoever_waits_for_the_job(host: Host) -> None:
    host.sbatch(9)
    (host.run.path / "jobs").mkdir()
    for name, job in (("0", 7), ("1", 8), ("0.guard", 11)):
        (host.run.path / "jobs" / name).write_text(f"{job}\n")
    stopped(host)
    assert host.bash("decide", last=1, name="broad", by="successor").returncode == 75
    assert host.calls()[1:] == [
        "update JobId=11 Dependency=afternotok:9", "update JobId=8 Dependency=afterok:9",
    ]  # fmt: skip
    assert host.run.job_file(0).read_text() == "9\n"


def test_a_successor_that_was_submitted_held_is_let_go_if_the_run_was_meanwhile(host: Host) -> None:
    host.command("sbatch", f"rm -f {host.run.held_file}; echo 9")
    host.command(
        "scontrol", f'case "$1" in release) echo "$*" >>{host.run.path}/calls ;; show) echo JobState=RUNNING ;; esac'
    )
    host.run.held_file.touch()
    stopped(host)
    assert host.bash("decide", by="successor").returncode == 75
    assert host.calls() == ["release 9"]


def test_a_job_that_was_requeued_held_is_let_go_if_the_run_was_meanwhile(host: Host) -> None:
    host.command(
        "scontrol",
        f'case "$1" in requeuehold) rm {host.run.held_file} ;; release) echo "$*" >>{host.run.path}/calls ;; '
        "show) echo JobState=PENDING ;; esac",
    )
    host.run.held_file.touch()
    stopped(host)
    assert host.bash("decide").returncode == 75
    assert host.calls() == ["release 7"]
    host.run.held_file.touch()
    assert host.bash("begin_attempt", attempt=2).returncode == 75
    assert host.calls() == ["release 7"] * 2


def test_a_step_of_a_pipeline_that_waits_for_the_last_stage_waits_for_its_successor(host: Host) -> None:
    host.sbatch(9)
    host.scontrol("JobState=PENDING Dependency=afterok:5(unfulfilled),afterok:7(unfulfilled) x")
    (host.run.path / "waiting").mkdir()
    (host.run.path / "waiting/40").write_text("afterok:7\n")
    stopped(host)
    assert host.bash("decide", by="successor").returncode == 75
    assert host.calls()[-1] == "update JobId=40 Dependency=afterok:5,afterok:9"
    assert (host.run.path / "waiting/40").read_text() == "afterok:9\n"


def test_a_job_that_a_person_cancels_while_this_is_decided_does_not_come_back(host: Host) -> None:
    host.ranks(("crashed", "boom", 1))
    host.command(
        "scontrol",
        f'case "$1" in requeue) touch {host.run.path}/gone ;; esac; '
        f'[ "$1" != show ] || {{ [ -e {host.run.path}/gone ] && echo "JobState=COMPLETING Restarts=0 x" || '
        'echo "JobState=RUNNING Restarts=0 x"; }',
    )
    host.sbatch()
    assert host.bash("decide", tasks=1).returncode == 75
    assert [name for name, _ in host.said()] == ["requeued", "cancelled"]
    assert host.calls() == []


def test_a_decision_hears_no_signal(host: Host) -> None:
    """SIGTERM at every moment of it: bash 5.2 ends a function in which a trap runs while $(…) is read."""
    host.ranks(("stopped", "", 1), ("stopped", "", 1))
    storm = "trap '' TERM; run_tasks() { sleep 0.1; }; while kill -TERM $$; do sleep 0.002; done >/dev/null 2>&1 & "
    done = host.bash(storm + "launch; decide")
    assert (done.returncode, [name for name, _ in host.said()]) == (75, ["signal", "exited", "requeued"])
    assert "unexpected EOF" not in done.stderr
