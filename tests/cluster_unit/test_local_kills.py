"""What is killed, cancelled at once or on a full disk under the local executor leaves no work behind and loses none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster_unit.conftest import (
    PROFILE,
    Bench,
    assert_all_gone,
    assert_resumes_alone,
    batch_script,
    events,
    exit_code,
    processes,
    state,
    status,
    steps,
    supervisor,
    task_pids,
    tell,
    wait_for,
    wait_for_steps,
    wait_until,
)
from tests.conftest import ROOT, xgen
from xgen.cluster import local
from xgen.cluster.slurm import SchedulerError

ONE = {"gpus_per_node": 1}


def test_kill_9_of_the_batch_script_ends_the_work_and_the_resumed_run_is_alone(bench: Bench) -> None:
    run = bench.count(2000, "--step", 0.05, resources=ONE)
    wait_for_steps(run, 3)
    os.kill(batch_script(run), signal.SIGKILL)
    exit_code(run)
    assert_all_gone(run)
    assert state(run) == "lost"
    assert_resumes_alone(bench, run)


def test_kill_9_of_a_task_ends_its_command_and_the_decision_does_not_wait(bench: Bench) -> None:
    run = bench.count(2000, "--step", 0.05, resources=ONE, restart={"max_failures": 3})
    wait_for_steps(run, 3)
    (command,) = processes(run, "counter.py")
    killed = time.time()
    os.kill(task_pids(run)[0], signal.SIGKILL)
    wait_for(run, "requeued", 1)
    assert command not in processes(run)
    assert events(run, "requeued")[0].time - killed < 4


@pytest.mark.parametrize("who", ["supervisor", "srun"])
def test_kill_9_of_what_runs_the_work_ends_it(bench: Bench, who: str) -> None:
    run = bench.count(2000, "--step", 0.05, resources=ONE, restart={"max_failures": 1})
    wait_for_steps(run, 3)
    os.kill(supervisor(run) if who == "supervisor" else int((run.path / "local/srun.pid").read_text()), signal.SIGKILL)
    exit_code(run)
    assert_all_gone(run)
    assert state(run) == {"supervisor": "lost", "srun": "failed"}[who]
    if who == "supervisor":
        done = xgen("cancel", run.name, "--cluster", str(bench.path / "local.yaml"))
        assert done.stdout == f"{run.name} was lost, job {supervisor(run)}; cancelled\n"
        assert state(run) == "cancelled"


def test_a_resume_ends_what_outlived_everything_that_would_have_ended_it(bench: Bench) -> None:
    run = bench.count(2000, "--step", 0.05, resources=ONE)
    wait_for_steps(run, 3)
    (command,) = processes(run, "counter.py")
    for pid in (int((run.path / "local/srun.pid").read_text()), batch_script(run), supervisor(run)):
        os.kill(pid, signal.SIGSTOP)
    for pid in (int((run.path / "local/srun.pid").read_text()), supervisor(run)):
        os.kill(pid, signal.SIGKILL)
    exit_code(run)
    wait_until(lambda: processes(run) == [command], lambda: f"{processes(run)}: {tell(run)}")
    assert_resumes_alone(bench, run)
    assert command not in processes(run)


def test_a_command_that_ignores_signals_does_not_outlive_a_cancel(bench: Bench) -> None:
    deaf = "trap '' TERM USR2; while :; do sleep 0.2; done"
    run = bench.submit(["bash", "-c", deaf], resources=ONE)
    wait_for(run, "container_ready")
    wait_until(lambda: processes(run, "trap"), lambda: tell(run))
    assert xgen("cancel", run.name, "--cluster", str(bench.path / "local.yaml")).returncode == 0
    exit_code(run)
    assert processes(run) == []
    assert state(run) == "cancelled"


def test_what_a_finished_task_leaves_behind_ends_with_it(bench: Bench) -> None:
    run = bench.submit(["bash", "-c", "sleep 600 & setsid sleep 601 &"], resources=ONE)
    assert exit_code(run) == 0, tell(run)
    assert processes(run) == []


@pytest.mark.parametrize("delay", [0.0, 0.15, 0.3])
def test_cancelled_at_once_is_cancelled(bench: Bench, delay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "xyzzy")
    run = bench.count(2000, "--step", 0.05, resources=ONE, secrets={"HF_TOKEN": {"env": "MINE"}})
    time.sleep(delay)
    assert local.send(run, signal.SIGTERM)
    assert exit_code(run) == 75
    assert state(run) == "cancelled"
    assert len(steps(run)) < 100  # of 2,000: a few where the machine was slow to send the signal
    assert not (run.path / ".secrets").exists()


def test_a_run_is_the_same_by_every_path_to_it(bench: Bench) -> None:
    (bench.path / "real").mkdir()
    (bench.path / "runs").symlink_to("real")
    run = bench.count(500, "--step", 0.05, resources=ONE)
    wait_for_steps(run, 3)
    profile = str(bench.path / "local.yaml")
    by_path = str(bench.path / "real" / run.name)
    assert xgen("status", by_path, "--cluster", profile).stdout.startswith(f"{run.name}  running\n")
    assert xgen("cancel", by_path, "--cluster", profile).returncode == 0
    exit_code(run)
    assert status(run, 1) == "cancelled"


@pytest.mark.parametrize("name", ["with space", 'with"quote', "with$HOME", "it's"])
def test_any_name_of_a_folder_will_do(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    (folder / "local.yaml").write_text(PROFILE)
    run = Bench(folder).submit(["true"], resources=ONE, restart={"max_failures": 1})
    assert exit_code(run) == 0, tell(run)


def test_a_run_has_one_supervisor(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run = bench.count(500, "--step", 0.05, resources=ONE)
    wait_for_steps(run, 1)
    monkeypatch.setattr(local, "await_end", lambda *_: None)
    with pytest.raises(SchedulerError, match=f"still run by process {supervisor(run)}; write xgen cancel {run.name}"):
        local.start(run, {0: ""}, {})


def test_a_full_disk_costs_the_output_and_not_the_task(tmp_path: Path) -> None:
    work = f"for i in range(20000): print('x' * 40)\nopen({str(tmp_path / 'done')!r}, 'w')"
    task = [sys.executable, "-c", work]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "xgen.cluster.local_srun", str(tmp_path), "--export=PATH", *task],
            cwd=ROOT, env={**os.environ, "SLURM_NTASKS": "1", "SLURM_NNODES": "1"}, stdout=full, stderr=full,
            start_new_session=True, timeout=30,
        )  # fmt: skip
    assert (done.returncode, (tmp_path / "done").exists()) == (0, True)
