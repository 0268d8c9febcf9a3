"""The functions of xgen/cluster/host/, each called by bash as the batch script calls it."""

from __future__ import annotations

import json
import os
import shlex
import signal
from pathlib import Path

import pytest

from tests.cluster_unit.host import Host, decided
from xgen.runs import read_events


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_there_is_no_durable_step_before_the_first_checkpoint(host: Host) -> None:
    assert host.bash("durable_step").stdout == "-1\n"


def test_only_complete_checkpoints_are_durable_and_numbers_are_compared_as_numbers(host: Host) -> None:
    for name in ("step-0", "step-9", "step-10", "step-x", "step-", ".step-99.5.tmp", "step-11.tmp"):
        host.checkpoint(name)
    host.checkpoint("step-500", manifest=False)
    assert host.bash("durable_step").stdout == "10\n"
    assert host.run.checkpoint_steps()[-1] == 10  # Python says the same


@pytest.mark.parametrize(
    ("statuses", "checkpoints", "failures"),
    [
        (["crashed", "crashed", "crashed"], [None, None, None], [1, 2, 3]),
        (["crashed", "crashed", "crashed"], [None, 10, None], [1, 1, 2]),
        (["crashed", "stopped", "crashed"], [None, None, None], [1, 1, 2]),
        (["stopped", "stopped", "stopped"], [None, None, None], [0, 0, 0]),
        (["lost", "crashed", "finished"], [5, None, 9], [1, 2, 0]),
        (["crashed", "stopped", "crashed"], [None, 20, None], [1, 0, 1]),
    ],
    ids=["no-progress", "progress-resets", "a-stop-does-not-count", "stops", "lost-counts", "saved-on-stop"],
)
def test_failures_in_a_row_without_a_new_checkpoint(
    host: Host, statuses: list[str], checkpoints: list[int | None], failures: list[int]
) -> None:
    for number, (status, checkpoint) in enumerate(zip(statuses, checkpoints, strict=True), 1):
        if checkpoint is not None:
            host.checkpoint(f"step-{checkpoint}")
        done = host.bash(f"write_outcome {number} {status} why; echo $FAILURES", attempt=number)
        assert (done.stdout, done.stderr) == (f"{failures[number - 1]}\n", "")
    assert [host.outcome(n).failures for n in (1, 2, 3)] == failures


@pytest.mark.parametrize("reason", ['say "no"', "back\\slash", "a, b} {c", "tab\there", "two\nlines", "it's $x `y`"])
def test_any_reason_is_kept_in_valid_json(host: Host, reason: str) -> None:
    done = host.bash(f"write_outcome 1 crashed {shlex.quote(reason)}; event failed \",\\\"reason\\\":"
                     f"\\\"$(json_text {shlex.quote(reason)})\\\"\"")  # fmt: skip
    assert done.stderr == ""
    expected = reason.replace("\n", " ").replace("\t", " ")
    assert host.outcome().reason == expected
    assert host.said() == [("failed", expected)]


@pytest.mark.parametrize("reason", ["red \x1b[31mink", "carriage\rreturn", "nul-free \x07 bell"])
def test_control_characters_in_a_reason_do_not_lose_the_event(host: Host, reason: str) -> None:
    host.bash(f'event failed ",\\"reason\\":\\"$(json_text {shlex.quote(reason)})\\""')
    assert [name for name, _ in host.said()] == ["failed"]


def test_the_first_crash_is_the_reason_quotes_and_all(host: Host) -> None:
    host.ranks(
        ("crashed", "ConnectionError: peer closed", 200.5),
        ("crashed", 'ValueError: bad "key" \\n in {"a": 1, "time":2}', 100.25),
    )
    done = host.bash("decide")
    assert done.returncode == 1
    assert host.outcome().status == "crashed"
    assert host.outcome().reason == 'rank 1: ValueError: bad "key" \\n in {"a": 1, "time":2}'
    assert host.said() == [("requeued", "crashed")]


def test_all_finished_is_finished(host: Host) -> None:
    host.ranks(("finished", "", 1), ("finished", "", 2))
    assert decided(host) == (0, "finished", ["finished"])


def test_a_wrong_spec_comes_before_a_crash(host: Host) -> None:
    host.ranks(("crashed", "peer gone", 1), ("refused", "no such model", 2))
    assert decided(host) == (78, "refused", ["failed"])
    assert host.said()[-1] == ("failed", "rank 1: no such model")


def test_a_crash_comes_before_a_stop(host: Host) -> None:
    host.ranks(("stopped", "", 1), ("crashed", "boom", 2))
    assert decided(host) == (1, "crashed", ["requeued"])


def test_some_finished_and_some_stopped_is_stopped(host: Host) -> None:
    host.ranks(("stopped", "", 1), ("finished", "", 2))
    host.scontrol("JobState=RUNNING PreemptTime=2026-01-01T00:00:00")
    assert decided(host) == (75, "stopped", ["requeued"])
    assert host.said() == [("requeued", "preempted")]
    assert (host.run.path / "calls").read_text() == "requeue Incomplete 7\n"


def test_a_job_that_slurm_takes_back_did_not_crash(host: Host) -> None:
    """A node is lost: srun may end before anybody is told."""
    host.scontrol("JobState=COMPLETING Reason=None Requeue=1 Restarts=1 BatchFlag=1")
    assert decided(host) == (75, "stopped", ["requeued"])
    assert host.outcome().failures == 0


def test_a_rank_without_an_outcome_crashed(host: Host) -> None:
    host.ranks(("finished", "", 1))
    assert decided(host) == (1, "crashed", ["requeued"])
    assert host.outcome().reason == "1 of 2 ranks ended without an outcome (srun: not started)"


def test_a_rank_without_an_outcome_that_was_told_to_stop_did_not(host: Host) -> None:
    host.ranks(("stopped", "", 1))
    assert decided(host, terminated="1") == (75, "stopped", ["requeued"])
    assert host.outcome().reason == "told to stop, and killed before it had saved"


def test_a_signal_before_the_handler_is_no_failure(host: Host) -> None:
    host.run.attempt_dir(1).mkdir()
    (host.run.attempt_dir(1) / "err.log").write_text("srun: error: n1: task 0: User defined signal 2\n")
    assert decided(host) == (75, "stopped", ["requeued"])


def test_the_last_failure_ends_the_run_with_78_and_removes_the_secrets(host: Host) -> None:
    (host.run.path / ".secrets").write_text("export A=b\n")
    host.ranks(("crashed", "boom", 1), ("crashed", "later", 2))
    done = host.bash("decide", most=1)
    assert (done.returncode, host.said()) == (78, [("failed", "rank 0: boom")])
    assert done.stderr.splitlines()[-1] == "xgen: rank 0: boom; the run ends here"
    assert not (host.run.path / ".secrets").exists()


def test_a_cancelled_run_is_not_requeued(host: Host) -> None:
    host.ranks(("stopped", "", 1), ("stopped", "", 1))
    host.run.cancelled_file.touch()
    assert decided(host) == (75, "cancelled", ["cancelled"])
    assert not (host.run.path / "calls").exists()


@pytest.mark.parametrize(
    ("record", "status"),
    [
        ("JobState=CANCELLED Reason=None PreemptTime=None", "cancelled"),
        ("JobState=COMPLETING Reason=None Restarts=0 BatchFlag=1 PreemptTime=None", "cancelled"),
        ("JobState=COMPLETING Reason=None Restarts=0 BatchFlag=1", "cancelled"),  # a partition that does not preempt
        ("JobState=COMPLETING Reason=None Restarts=0 BatchFlag=1 PreemptTime=2026-01-01T00:00:00", "stopped"),
        ("JobState=COMPLETING Reason=None Restarts=1 BatchFlag=1", "stopped"),  # its node went down
    ],
)
def test_scancel_is_seen_in_slurm_s_own_record(host: Host, record: str, status: str) -> None:
    host.ranks(("stopped", "", 1), ("stopped", "", 1))
    host.scontrol(record)
    last = "cancelled" if status == "cancelled" else "requeued"
    assert decided(host, terminated="1") == (75, status, [last])


def test_a_predecessor_without_an_outcome_was_lost(host: Host) -> None:
    host.run.attempt_dir(1).mkdir()
    host.bash("settle_predecessor", attempt=2)
    assert (host.outcome(1).status, host.outcome(1).failures) == ("lost", 1)


def test_a_predecessor_that_was_told_to_stop_did_not_fail(host: Host) -> None:
    host.run.attempt_dir(1).mkdir()
    host.bash("event signal", attempt=1)
    host.bash("settle_predecessor", attempt=2, most=1)
    assert (host.outcome(1).status, host.outcome(1).failures) == ("stopped", 0)


def test_too_many_lost_predecessors_end_the_run(host: Host) -> None:
    host.run.attempt_dir(1).mkdir()
    done = host.bash("settle_predecessor; echo went on", attempt=2, most=1)
    assert (done.returncode, done.stdout) == (78, "")
    assert host.said() == [("failed", "attempt 1 is the failure number 1 in a row without a new checkpoint")]


@pytest.mark.parametrize("number", [1, 12, 123])
def test_a_signal_of_another_attempt_is_not_this_one_s(host: Host, number: int) -> None:
    host.bash("event signal", attempt=number)
    told = [n for n in (1, 2, 12, 123) if host.bash(f"was_signalled {n}").returncode == 0]
    assert told == [number]


def test_what_looks_like_a_secret_is_not_recorded(host: Host) -> None:
    text = (
        "export HF_TOKEN=a MY_SECRET_X=b DB_PASSWORD=c API_KEY=d PLAIN='two words'; record_environment $ATTEMPT_DIR/env"
    )
    host.bash(text)
    recorded = (host.run.attempt_dir(1) / "env").read_text().splitlines()
    for line in ("HF_TOKEN=***", "MY_SECRET_X=***", "DB_PASSWORD=***", "API_KEY=***", "PLAIN=two\\ words"):
        assert line in recorded


def test_every_event_of_the_host_is_one_line_of_json(host: Host) -> None:
    host.bash('event started \',"nodes":"n[1-2]"\'; event exited \',"exit_code":137\'')
    lines = [json.loads(line) for line in (host.run.events_dir / "host.jsonl").read_text().splitlines()]
    assert [(e["event"], e["writer"], e["attempt"], e["job_id"]) for e in lines] == [
        ("started", "host", 1, "7"), ("exited", "host", 1, "7"),
    ]  # fmt: skip
    assert lines[0]["time"] <= lines[1]["time"]


def test_a_finished_run_has_nothing_to_do(host: Host) -> None:
    host.ranks(("finished", "", 1), ("finished", "", 1))
    assert decided(host)[0] == 0
    done = host.bash("begin_attempt; echo went on", attempt=2)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "xgen: demo-abc234 has finished; job 7 has nothing to do\n"


def test_a_job_that_starts_after_a_run_has_failed_leaves_it_so_until_a_person_resumes_it(host: Host) -> None:
    """A submission that was heard late; or the node died before the batch script had ended, and SLURM starts it."""
    host.ranks(("crashed", "boom", 1), ("crashed", "", 2))
    assert decided(host, most=1)[0] == 78
    late = host.bash("begin_attempt; echo went on", attempt=1)
    assert (late.returncode, late.stdout, host.run.last_attempt()) == (78, "", 1)
    assert late.stderr == "xgen: demo-abc234 has ended; job 7 leaves it so, xgen resume demo-abc234 does not\n"
    assert [name for name, _ in host.said()] == ["failed"]
    host.run.resumed_file.touch()  # its marker put back by a batch script that was about to end
    os.utime(host.run.resumed_file, (2e9, 2e9))
    assert host.bash("begin_attempt", attempt=1).returncode == 0
    assert host.run.last_attempt() == 2


def test_whoever_hears_that_a_run_has_ended_finds_its_secrets_gone_already(host: Host) -> None:
    """Else a resume at this moment would have its new ones removed."""
    for ranks, record in (
        ("crashed", "JobState=RUNNING"),
        ("refused", "JobState=RUNNING"),
        ("stopped", "JobState=CANCELLED"),
    ):
        (host.run.path / ".secrets").write_text("sealed")
        host.scontrol(record)
        host.ranks((ranks, "", 1))
        host.bash(f'event() {{ [ ! -e "$RUN/.secrets" ] || touch "$RUN/early-{ranks}"; }}; decide', tasks=1, most=1)
        assert not (host.run.path / ".secrets").exists()
    assert not list(host.run.path.glob("early-*"))


def test_a_stage_that_is_not_the_last_ends_and_the_run_does_not(host: Host) -> None:
    (host.run.path / ".secrets").write_text("sealed")
    host.ranks(("finished", "", 1), ("finished", "", 1))
    done = host.bash("decide", last=2, name="broad")
    assert done.returncode == 0
    assert (host.outcome().status, host.outcome().stage) == ("stage_finished", 0)
    assert [e.stage for e in read_events(host.run) if e.event == "stage_finished"] == ["broad"]
    assert (host.run.path / ".secrets").exists()  # the next stage opens them


def test_the_next_stage_starts_and_the_same_one_has_nothing_to_do(host: Host) -> None:
    host.ranks(("finished", "", 1), ("finished", "", 1))
    host.bash("decide", last=2, name="broad")
    again = host.bash("begin_attempt; echo went on", attempt=2, last=2, name="broad")
    assert (again.returncode, again.stdout) == (0, "")
    assert again.stderr == "xgen: demo-abc234 has finished stage broad; job 7 has nothing to do\n"
    following = host.bash("begin_attempt; echo went on", attempt=2, stage=1, last=2, name="anneal")
    assert following.returncode == 0
    assert [e.stage for e in read_events(host.run) if e.event == "started"] == ["anneal"]


def test_a_stage_that_fails_counts_its_own_failures(host: Host) -> None:
    host.checkpoint("step-6")
    host.ranks(("finished", "", 1), ("finished", "", 1))
    host.bash("decide", last=1, name="broad")
    host.ranks(("crashed", "it broke", 1), ("crashed", "it broke", 2), attempt=2)
    host.bash("decide", attempt=2, stage=1, last=1, name="anneal")
    assert (host.outcome(2).status, host.outcome(2).failures, host.outcome(2).stage) == ("crashed", 1, 1)


def test_what_a_person_resumes_starts_whatever_the_failures_before(host: Host) -> None:
    for number in (1, 2):
        host.bash(f"write_outcome {number} crashed why", attempt=number, most=1)
    host.run.attempt_dir(3).mkdir()  # whose batch script was killed
    lost = host.bash("settle_predecessor; echo goes on", attempt=4, most=1)
    assert (lost.returncode, lost.stdout) == (78, "")
    assert host.outcome(4).status == "refused"  # and is not taken for lost by the next
    resumed = host.bash("RESUMED=1; settle_predecessor; echo goes on; write_outcome 5 crashed why", attempt=5, most=1)
    assert (resumed.returncode, resumed.stdout) == (0, "goes on\n")
    assert host.outcome(5).failures == 1


def test_a_predecessor_that_was_stopped_is_no_reason_to_give_up(host: Host) -> None:
    for number in (1, 2):
        host.bash(f"write_outcome {number} crashed why", attempt=number)
    host.bash('event signal \',"signal":"SIGUSR2"\'', attempt=3)
    done = host.bash("settle_predecessor; echo goes on", attempt=4, most=2)
    assert done.stdout == "goes on\n"
    assert host.outcome(3).status == "stopped"


def test_time_limits_without_a_checkpoint_end_the_run_and_preemptions_do_not(host: Host) -> None:
    for number in (1, 2, 3, 4):
        host.bash(f"write_outcome {number} stopped why preempted", attempt=number)
    assert host.outcome(4).failures == 0
    for number in (5, 6):
        host.bash(f"write_outcome {number} stopped why time_limit", attempt=number)
    assert host.outcome(6).failures == 2
    host.checkpoint("step-5")
    host.bash("write_outcome 7 stopped why time_limit", attempt=7)
    assert host.outcome(7).failures == 0
    host.ranks(("stopped", "", 1.0), attempt=8)
    done = host.bash("SECONDS=3600; decide", attempt=8, tasks=1, most=1)
    assert done.returncode == 78
    assert host.said()[-1] == ("failed", "1 attempts in a row came to their time limit without a new checkpoint")


@pytest.mark.parametrize(
    "line",
    [
        "srun: error: n1: task 0: User defined signal 2",
        "srun: error: n1: tasks 0-1: User defined signal 2",
        "srun: error: n1: tasks 0-1: Terminated",
        "srun: error: n1: tasks 0-1: Exited with exit code 140",
        "srun: error: n1: task 3: Exited with exit code 143",
    ],
)
def test_tasks_that_died_of_the_signal_before_they_were_armed_were_stopped(host: Host, line: str) -> None:
    host.run.attempt_dir(1).mkdir()
    (host.run.attempt_dir(1) / "err.log").write_text(line + "\n")
    assert host.bash("TASKS_EXIT=140; decide").returncode == 75
    assert host.outcome().status == "stopped"


def test_tasks_that_srun_terminates_after_a_crash_were_not_stopped(host: Host) -> None:
    host.run.attempt_dir(1).mkdir()
    said = ["srun: error: n2: task 1: Exited with exit code 1", "srun: error: n1: task 0: Terminated"]
    (host.run.attempt_dir(1) / "err.log").write_text("\n".join(said) + "\n")
    assert host.bash("TASKS_EXIT=143; decide").returncode == 1
    assert host.outcome().status == "crashed"


def test_told_to_stop_before_the_tasks_start_none_is_started(host: Host) -> None:
    done = host.bash("run_tasks() { echo started; }; launch; decide", terminated="1")
    assert (done.returncode, done.stdout) == (75, "")
    assert [name for name, _ in host.said()] == ["signal", "requeued"]


def test_an_image_that_this_node_does_not_see_is_a_failure_and_one_that_changed_a_refusal(host: Host) -> None:
    image = host.run.path / "image.sqsh"
    away = host.bash(f"same_image {image} 3 1000", most=2)
    assert (away.returncode, host.outcome().status) == (1, "crashed")
    assert f"the image {image} could not be made ready on every node" in host.outcome().reason
    image.write_text("abc")
    os.utime(image, (1000, 1000))
    assert host.bash(f"same_image {image} 3 1000; echo goes on", attempt=2).stdout == "goes on\n"
    changed = host.bash(f"same_image {image} 4 1000; echo goes on", attempt=3)
    assert (changed.returncode, changed.stdout, host.outcome(3).status) == (78, "", "refused")


def test_work_that_was_done_when_the_cancel_came_has_finished(host: Host) -> None:
    host.run.cancelled_file.touch()
    host.ranks(("finished", "", 1.0), ("finished", "", 1.0))
    assert host.bash("decide").returncode == 0
    assert host.outcome().status == "finished"


def test_what_notes_the_size_of_the_logs_ends_with_a_batch_script_that_is_killed(host: Host) -> None:
    """It has the script's errors, which are read to their end here, while the script is a zombie."""
    assert host.bash("note_sizes </dev/null & kill -9 $$").returncode == -signal.SIGKILL
