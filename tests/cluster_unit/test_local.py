"""The local executor keeps the contract of the batch script: signals, outcomes, requeue, all without SLURM."""

from __future__ import annotations

import json
import os
import signal
import sys
from itertools import pairwise

import pytest

from tests.cluster_unit.conftest import (
    Bench,
    assert_every_step_once,
    events,
    exit_code,
    reason,
    status,
    steps,
    task_pids,
    tell,
    wait_for,
    wait_for_steps,
    wait_until,
)
from tests.conftest import xgen
from xgen.cluster import local
from xgen.runs import read_attempt_outcome, read_events, replay

PRINT = """
import json, os, pathlib
if os.environ["XGEN_RANK"] == "0":
    run = pathlib.Path(os.environ["XGEN_RUN_DIR"])
    (run / "seen.json").write_text(json.dumps(dict(os.environ)))
"""


def test_a_job_runs_to_its_end(bench: Bench) -> None:
    run = bench.count(5, "--step", 0.02)
    assert exit_code(run) == 0, tell(run)
    assert [e.event for e in read_events(run) if e.event != "container_ready"] == [
        "submitted", "queued", "started", "exited", "finished",
    ]  # fmt: skip
    assert status(run, 1) == "finished"
    assert_every_step_once(run, 5)
    assert (run.attempt_dir(1) / "sbatch.sh").read_text() == (run.path / "local/script-0.sh").read_text()


def test_a_preempted_job_saves_is_requeued_and_resumes_at_the_saved_step(bench: Bench) -> None:
    run = bench.count(40, "--step", 0.03, resources={"partition": "preempt"})
    wait_for_steps(run, 5)
    assert local.send(run, signal.SIGUSR2)
    assert exit_code(run) == 0, tell(run)
    assert (status(run, 1), status(run, 2)) == ("stopped", "finished")
    assert [e.reason for e in events(run, "requeued")] == ["preempted"]
    assert replay(read_events(run)).restarts["preempted"] == 1
    assert {attempt for _, attempt in steps(run)} == {1, 2}
    assert_every_step_once(run, 40)


def test_the_time_limit_is_a_stop_not_a_failure(bench: Bench) -> None:
    run = bench.count(120, "--step", 0.05, lead="4s", resources={"time": "9s"}, restart={"max_failures": 1})
    assert exit_code(run) == 0, tell(run)
    last = run.last_attempt()
    assert last >= 2
    assert [status(run, n) for n in range(1, last + 1)] == ["stopped"] * (last - 1) + ["finished"]
    assert {e.reason for e in events(run, "requeued")} == {"time_limit"}
    assert_every_step_once(run, 120)


def test_a_cancelled_run_saves_and_stays_cancelled(bench: Bench) -> None:
    run = bench.count(500, "--step", 0.05)
    wait_for_steps(run, 3)
    done = xgen("cancel", run.name, "--cluster", str(bench.path / "local.yaml"))
    assert (done.returncode, done.stderr) == (0, "")
    wait_until(lambda: not local.is_alive(run), lambda: tell(run))
    assert (run.last_attempt(), status(run, 1)) == (1, "cancelled")
    assert ([e.writer for e in events(run, "cancelled")], events(run, "requeued")) == (["client", "host"], [])
    assert run.checkpoint_steps()[-1] == steps(run)[-1][0]
    said = xgen("status", run.name, "--cluster", str(bench.path / "local.yaml"))
    assert said.stdout.startswith(f"{run.name}  cancelled\n")


def test_a_run_that_the_scheduler_was_told_to_cancel_stays_cancelled(bench: Bench) -> None:
    run = bench.count(500, "--step", 0.05, resources={"gpus_per_node": 1})
    wait_for_steps(run, 3)
    assert local.send(run, signal.SIGTERM)
    exit_code(run)
    assert (run.last_attempt(), status(run, 1)) == (1, "cancelled")
    assert (len(events(run, "cancelled")), events(run, "requeued")) == (1, [])


def test_a_cancelled_run_is_resumed_where_it_was_saved(bench: Bench) -> None:
    run = bench.count(120, "--step", 0.05)
    profile = str(bench.path / "local.yaml")
    wait_for_steps(run, 3)
    xgen("cancel", run.name, "--cluster", profile)
    wait_until(lambda: not local.is_alive(run), lambda: tell(run))
    done = xgen("resume", run.name, "--cluster", profile)
    assert done.returncode == 0, done.stderr
    wait_for(run, "finished")
    assert_every_step_once(run, 120)
    again = xgen("resume", run.name, "--cluster", profile)
    assert (again.returncode, again.stderr) == (2, f"{run.name} has finished: nothing to resume\n")


def test_a_crash_without_progress_ends_the_run_after_max_failures(bench: Bench) -> None:
    run = bench.count(40, "--step", 0.02, "--crash-at", 3, restart={"max_failures": 2})
    assert exit_code(run) == 78, tell(run)
    assert run.last_attempt() == 2
    assert [status(run, n) for n in (1, 2)] == ["crashed", "crashed"]
    assert [e.reason for e in events(run, "requeued")] == ["crashed"]
    (failed,) = events(run, "failed")
    assert failed.reason == "rank 0: the command exited with 1"
    outcome = read_attempt_outcome(run, 2)
    assert outcome is not None
    assert (outcome.failures, outcome.durable_step) == (2, -1)


def test_failures_with_progress_in_between_do_not_add_up(bench: Bench) -> None:
    """Each attempt crashes, but saves more than the one before."""
    work = (
        "import os, pathlib, sys\n"
        "run = pathlib.Path(os.environ['XGEN_RUN_DIR']); n = int(os.environ['XGEN_ATTEMPT'])\n"
        "(run / f'checkpoints/step-{n}').mkdir(exist_ok=True)\n"
        "(run / f'checkpoints/step-{n}/manifest.json').write_text('{}')\n"
        "sys.exit(3 if n < 4 else 0)\n"
    )
    run = bench.submit([sys.executable, "-c", work], restart={"max_failures": 2}, resources={"gpus_per_node": 1})
    assert exit_code(run) == 0, tell(run)
    found = [read_attempt_outcome(run, n) for n in (1, 2, 3, 4)]
    assert [(o.status, o.failures, o.durable_step) for o in found if o] == [
        ("crashed", 1, 1), ("crashed", 1, 2), ("crashed", 1, 3), ("finished", 0, 4),
    ]  # fmt: skip


def test_kill_9_of_one_task_ends_the_attempt_and_the_next_one_goes_on(bench: Bench) -> None:
    run = bench.count(40, "--step", 0.05, "--every", 5, restart={"max_failures": 2})
    wait_until(run.checkpoint_steps, lambda: tell(run))
    os.kill(task_pids(run)[1], signal.SIGKILL)
    assert exit_code(run) == 0, tell(run)
    assert reason(run, 1) == "2 of 2 ranks ended without an outcome (srun: 137)"
    assert [e.reason for e in events(run, "requeued")] == ["crashed"]
    second = [step for step, attempt in steps(run) if attempt == 2]
    resumed = second[0] - 1
    assert resumed % 5 == 0 < resumed
    assert all(b == a + 1 for a, b in pairwise(second))
    assert second[-1] == 40


def test_a_program_that_cannot_be_started_is_refused_without_another_try(bench: Bench) -> None:
    run = bench.submit(["/no/such/program"], restart={"max_failures": 5})
    assert exit_code(run) == 78, tell(run)
    assert (run.last_attempt(), status(run, 1)) == (1, "refused")
    (failed,) = events(run, "failed")
    assert (failed.reason or "")[8:] == "command[0]: cannot start '/no/such/program': No such file or directory"


@pytest.mark.parametrize(("code", "said", "left"), [(78, "refused", 78), (0, "finished", 0)])
def test_exit_codes_of_a_command_mean_what_the_spec_says(bench: Bench, code: int, said: str, left: int) -> None:
    run = bench.submit(["sh", "-c", f"exit {code}"], resources={"gpus_per_node": 1})
    assert exit_code(run) == left, tell(run)
    assert status(run, 1) == said


NASTY = {
    "SPACES": "  two  spaces ",
    "QUOTES": 'it\'s "quoted" `id`',
    "COMMAS": "a,b=c,,d",
    "DOLLAR": "$HOME ${HOME} $(id) \\$x",
    "LINES": "first\nsecond\n\nfourth\n",
    "SHELL": "; rm -rf * & | > < ! # ~ [a-z]* {1,2}",
    "WORDS": "größe 長さ",
    "EMPTY": "",
    "BACKSLASH": "\\n \\\\ \\",
}


def test_values_of_the_environment_arrive_as_they_were_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "xyzzy" + NASTY["QUOTES"] + NASTY["LINES"] + NASTY["DOLLAR"])
    run = bench.submit([sys.executable, "-c", PRINT], env=NASTY | {"NUMBER": 3}, secrets={"HF_TOKEN": {"env": "MINE"}})
    secrets = run.path / ".secrets"
    assert secrets.stat().st_mode & 0o777 == 0o600
    assert exit_code(run) == 0, tell(run)
    seen = json.loads((run.path / "seen.json").read_text())
    assert {name: seen.get(name) for name in NASTY} == NASTY
    assert (seen["NUMBER"], seen["HF_TOKEN"]) == ("3", os.environ["MINE"])
    assert (seen["XGEN_RANK"], seen["XGEN_WORLD_SIZE"], seen["XGEN_ATTEMPT"]) == ("0", "2", "1")
    assert "MINE" not in seen  # what the spec does not name stays behind
    assert not secrets.exists()  # it has ended
    secret = b"xyzzy"
    holders = [p.name for p in run.path.rglob("*") if p.is_file() and secret in p.read_bytes()]
    assert holders == ["seen.json"]  # what the command itself wrote
    assert "XGEN_SECRETS_KEY=***\n" in (run.attempt_dir(1) / "env").read_text()


def test_a_variable_of_the_job_cannot_change_the_decision(bench: Bench) -> None:
    """The job's variables and those of the host library live in one shell."""
    names = ("ATTEMPT", "LEAD", "NUM_TASKS", "FAILURES", "ATTEMPT_DIR", "RUN_NAME", "TIME_LIMIT")
    run = bench.submit(["true"], env=dict.fromkeys(names, "7"), resources={"gpus_per_node": 1})
    assert exit_code(run) == 0, tell(run)
    assert status(run, 1) == "finished"
