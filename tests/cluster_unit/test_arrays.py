"""A job array is one run: each shard is tried again alone, and the run is told of the first start and of the end."""

from __future__ import annotations

import signal
import sys
import time

from tests.cluster_unit.conftest import Bench, events, exit_code, status, tell, wait_until
from tests.conftest import xgen
from xgen.cluster import local
from xgen.runs import RunDir, read_attempt_outcome, read_events

# The shards in `fail` crash while a file is not there, those in `wait` wait to be stopped once.
WORK = """
import os, pathlib, sys, time
shard, total, run = os.environ["XGEN_SHARD"], os.environ["XGEN_NUM_SHARDS"], pathlib.Path(os.environ["XGEN_RUN_DIR"])
with (run / "tries").open("a") as file:
    file.write(f"{shard} of {total}\\n")
tries = len((run / "tries").read_text().splitlines())
if shard in sys.argv[1].split(",") and not pathlib.Path(sys.argv[3]).exists():
    sys.exit(1)
if shard in sys.argv[2].split(",") and tries == 1:
    import signal
    signal.signal(signal.SIGUSR2, lambda *_: sys.exit(75))
    time.sleep(60)
"""


def submit(bench: Bench, shards: int, fail: str = "-", wait: str = "-", **keys: object) -> RunDir:
    command = [sys.executable, "-c", WORK, fail, wait, str(bench.path / "mended")]
    return bench.submit(command, array={"shards": shards}, resources={"gpus_per_node": 1}, **keys)


def tries(run: RunDir, shard: int) -> list[str]:
    file = run.shard("", shard).path / "tries"
    return file.read_text().splitlines() if file.exists() else []


def test_every_shard_runs_once_and_the_run_ends_with_the_last(bench: Bench) -> None:
    run = submit(bench, 3)
    assert exit_code(run) == 0, tell(run)
    assert [tries(run, shard) for shard in range(3)] == [["0 of 3"], ["1 of 3"], ["2 of 3"]]
    assert [e.event for e in read_events(run)] == ["submitted", "queued", "started", "finished"]
    assert status(run, 1) == "finished"


def test_a_shard_that_is_stopped_runs_again_alone(bench: Bench) -> None:
    run = submit(bench, 3, wait="1")
    wait_until(lambda: tries(run, 1), lambda: tell(run))
    time.sleep(0.5)  # its handler is armed
    assert local.send(run, signal.SIGUSR2)
    assert exit_code(run) == 0, tell(run)
    assert [len(tries(run, shard)) for shard in range(3)] == [1, 2, 1]
    assert [e.event for e in events(run.shard("", 1), "requeued")] == ["requeued"]


def test_a_shard_that_fails_is_given_up_and_a_resume_runs_it_alone(bench: Bench) -> None:
    run = submit(bench, 3, fail="1", restart={"max_failures": 2})
    assert exit_code(run) != 0
    assert [len(tries(run, shard)) for shard in range(3)] == [1, 2, 1]
    [failed] = events(run, "failed")
    assert "shard 1: " in (failed.reason or "")
    assert status(run, 1) == "crashed"
    (bench.path / "mended").touch()
    done = xgen("resume", run.name, "--cluster", str(bench.path / "local.yaml"), cwd=bench.path)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: events(run, "finished"), lambda: tell(run))
    assert [len(tries(run, shard)) for shard in range(3)] == [1, 3, 1]
    outcome = read_attempt_outcome(run, 2)
    assert outcome is not None
    assert outcome.status == "finished"


def test_a_cancelled_array_starts_no_other_shard(bench: Bench) -> None:
    run = submit(bench, 3, wait="0")
    wait_until(lambda: tries(run, 0), lambda: tell(run))
    done = xgen("cancel", run.name, "--cluster", str(bench.path / "local.yaml"), cwd=bench.path)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not local.is_alive(run), lambda: tell(run))
    assert [len(tries(run, shard)) for shard in range(3)] == [1, 0, 0]
    assert events(run, "finished") == []
