"""The dev SLURM itself: quick to come up, hard to kill, gone without a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.conftest import sbatch, scontrol, wait_until
from tests.conftest import ROOT
from xgen.spec import load_profile

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("_dev_slurm")]
STATE = Path("/var/lib/xgen-dev-slurm")
DAEMONS = ["munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd-n3"]


def dev(command: str, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "slurm/dev" / command, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


def works() -> bool:
    done = subprocess.run(
        ["srun", "--quiet", "--partition=gpu", "--nodes=4", "--gpus-per-node=1", "--time=1", "hostname"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return sorted(done.stdout.split()) == ["n1", "n2", "n3", "n4"]


def lives(pid: int) -> bool:
    """A zombie does not: where pid 1 does not reap, it stays for ever."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("daemon", DAEMONS)
def test_up_mends_a_daemon_that_was_killed(daemon: str) -> None:
    os.kill(int((STATE / "run" / f"{daemon}.pid").read_text()), signal.SIGKILL)
    time.sleep(0.2)
    status = dev("status", "--json")
    assert status.returncode == 1
    assert json.loads(status.stdout)[daemon] == "down"
    up = dev("up")
    assert up.returncode == 0, up.stderr
    assert dev("status").returncode == 0
    assert works()


def test_down_leaves_nothing_and_up_takes_less_than_15_seconds() -> None:
    assert dev("up", "--docker").returncode == 0
    pids = {file.stem: int(file.read_text()) for file in (STATE / "run").glob("*.pid")}
    assert len(pids) == 9
    assert all(lives(pid) for pid in pids.values())
    down = dev("down")
    assert down.returncode == 0, down.stderr
    assert not STATE.exists()
    assert not list(Path("/etc/slurm").glob("slurm*.conf"))
    assert "xgen-dev-slurm" not in Path("/etc/hosts").read_text()
    assert not list(Path("/sys/fs/cgroup").glob("*/slurm_n*"))
    assert [name for name, pid in pids.items() if lives(pid)] == []
    assert str(STATE) not in Path("/proc/mounts").read_text()
    assert dev("status").returncode == 1
    assert dev("down").returncode == 0
    began = time.monotonic()
    up = dev("up")
    assert up.returncode == 0, up.stderr
    assert time.monotonic() - began < 15
    assert works()


def test_up_does_not_depend_on_what_the_hostname_of_the_machine_means() -> None:
    assert dev("down").returncode == 0
    up = subprocess.run(
        ["unshare", "--uts", "sh", "-c", 'hostname no-such-name; exec "$0"', ROOT / "slurm/dev/up"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert up.returncode == 0, up.stderr
    assert works()


def test_down_ends_jobs_whose_controller_was_killed() -> None:
    sbatch("--partition=preempt", "--nodes=2", "--wrap", "srun sleep 97")
    wait_until(lambda: len(sleepers()) == 2, 30, "two tasks")
    tasks = sleepers()
    os.kill(int((STATE / "run/slurmctld.pid").read_text()), signal.SIGKILL)
    assert dev("down").returncode == 0
    assert [pid for pid in tasks if lives(pid)] == []
    assert not list(Path("/sys/fs/cgroup").glob("*/slurm_n*"))
    assert dev("up").returncode == 0


def sleepers() -> list[int]:
    """Process ids of the tasks of the job above."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            program, *arguments = file.read_bytes().split(b"\0")
        except OSError:
            continue
        if program.endswith(b"sleep") and arguments == [b"97", b""]:
            found.append(int(file.parent.name))
    return found


def test_up_puts_right_what_was_set_by_hand() -> None:
    scontrol("update", "partitionname=preempt", "GraceTime=0")
    up = dev("up", "--grace", "7", "--kill-wait", "3")
    assert "settings applied: grace 7s, KillWait 3s" in up.stdout
    assert "GraceTime=7 " in scontrol("show", "partition", "preempt")
    assert "settings applied" in dev("up").stdout
    assert "settings applied" not in dev("up").stdout


def test_the_profile_promises_what_the_cluster_does() -> None:
    profile = load_profile(ROOT / "slurm/clusters/dev.yaml")
    assert dev("up").returncode == 0
    assert f"GraceTime={profile.partitions['preempt'].grace:.0f} " in scontrol("show", "partition", "preempt")
    assert f"= {profile.kill_wait:.0f} sec" in scontrol("show", "config").partition("KillWait")[2].partition("\n")[0]


def test_two_ups_at_once_and_one_more_change_nothing() -> None:
    running = [subprocess.Popen([ROOT / "slurm/dev/up"], stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    assert works()


def test_gpus_that_were_not_granted_do_not_open() -> None:
    probe = f"for i in 0 1 2 3 4 5 6 7; do head -c 1 {STATE}/dev/fakegpu$i 2>&1; done; true"
    done = subprocess.run(
        ["srun", "--quiet", "--partition=gpu", "--gpus-per-node=2", "--time=1", "sh", "-c", probe],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    # No driver stands behind them: a granted one says so, the others may not even be opened.
    assert done.stdout.count("No such device") == 2
    assert done.stdout.count("Operation not permitted") == 6


@pytest.mark.parametrize("arguments", [["--grease", "5"], ["--grace", "5s"], ["--grace"], ["--second", "5"]])
def test_unknown_option_is_one_line_that_says_what_to_write(arguments: list[str]) -> None:
    done = dev("up", *arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "slurm/dev/up [--second] [--grace SECONDS]" in done.stderr


@pytest.mark.parametrize("script", ["down", "status"])
@pytest.mark.parametrize("arguments", [["--secnd"], ["second"], ["--second", "--help"]])
def test_what_is_not_understood_ends_and_shows_nothing(script: str, arguments: list[str]) -> None:
    done = dev(script, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"'{arguments[-1]}' is not understood; write: slurm/dev/{script} [--second]" in done.stderr
