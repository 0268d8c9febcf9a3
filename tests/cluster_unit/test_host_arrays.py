"""The functions of xgen/cluster/host/ for shards of a job array, each called by bash as the batch script does."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from xgen.cluster.host import host_library
from xgen.runs import RankOutcome, RunDir, read_attempt_outcome, read_events

_SHARD = """
RUN={run} RUN_NAME=demo-abc234 NUM_TASKS=1 TIME_LIMIT=3600 LEAD=60 MAX_FAILURES=1 SHARDS={shards}
STAGE=0 LAST_STAGE=1 STAGE_NAME=tag DISCOVERY_FILE="$RUN/discovery.json" FAILURES=0 RESUMED='' REQUEUE_PAUSE=0.1
NUM_GPUS=8 RESTART_BY=requeue BACKOFF_FIRST=30 BACKOFF_MOST=600 MAX_GPU_SECONDS=0 FROM_CLIENT=PATH
TERMINATED='' SLURM_JOB_ID={raw} SLURM_ARRAY_JOB_ID={array} SLURM_ARRAY_TASK_ID={shard} SLURM_JOB_NODELIST=n1
. {host}
"""


class Array:
    """A job array of the stage `tag`, which another stage waits for, and a bash for each of its shards."""

    def __init__(self, folder: Path) -> None:
        self.run = RunDir(folder / "demo-abc234")
        self.run.create()
        (self.run.path / "jobs").mkdir()
        self.run.job_file(0).write_text("12\n")
        self.run.job_file(1).write_text("20\n")
        self.library = folder / "host.sh"
        self.library.write_text(host_library())
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.command("scontrol", f'case "$1" in requeue|update) echo "$*" >>{self.run.path}/calls ;; esac')

    def command(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def start(self, shard: int, text: str, shards: int = 3, array: int = 12) -> subprocess.Popen[str]:
        script = _SHARD.format(
            run=shlex.quote(str(self.run.path)), shards=shards, raw=array if shard == shards - 1 else array + 1 + shard,
            array=array, shard=shard, host=shlex.quote(str(self.library)),
        )  # fmt: skip
        environment = {"PATH": f"{self.bin}:{os.environ['PATH']}", "LC_ALL": "C"}
        return subprocess.Popen(["bash", "-c", script + text], env=environment, text=True)

    def attempt(self, shard: int, status: str, shards: int = 3, array: int = 12) -> int:
        """A shard whose only rank ends so; returns the exit code of the batch script."""
        assert self.start(shard, "begin_attempt", shards, array).wait(timeout=60) == 0
        run = self.run.shard("tag", shard)
        outcome = RankOutcome.model_validate(
            {"status": status, "reason": "why" if status == "crashed" else "", "time": 1}
        )
        outcome.write(run, run.last_attempt(), 0)
        done = self.start(
            shard,
            f'begin_shard; ATTEMPT={run.last_attempt()} ATTEMPT_DIR=$(attempt_dir "$ATTEMPT"); decide',
            shards,
            array,
        )
        return done.wait(timeout=60)

    def calls(self) -> str:
        return (self.run.path / "calls").read_text() if (self.run.path / "calls").exists() else ""

    def said(self) -> list[tuple[str, str | None]]:
        return [(event.event, event.reason) for event in read_events(self.run)]


@pytest.fixture
def array(tmp_path: Path) -> Array:
    return Array(tmp_path)


def test_of_many_shards_that_start_and_end_at_once_the_run_hears_once(array: Array) -> None:
    started = [array.start(shard, "begin_attempt; end_shard finished", shards=12) for shard in range(12)]
    assert [one.wait(timeout=60) for one in started] == [0] * 12
    assert array.said() == [("started", None), ("stage_finished", None)]
    assert array.run.last_attempt() == 1
    outcome = read_attempt_outcome(array.run, 1)
    assert outcome is not None
    assert (outcome.status, outcome.stage) == ("stage_finished", 0)
    assert {event.job_id for event in read_events(array.run)} == {"12"}


def test_an_array_that_starts_after_the_run_has_ended_leaves_it_so(array: Array) -> None:
    array.run.ended_file.touch()
    assert array.start(1, "begin_attempt", array=13).wait(timeout=60) == 78
    assert (array.said(), array.run.last_attempt()) == ([], 0)


def test_a_shard_asks_slurm_for_itself_alone_though_its_job_has_the_number_of_the_array(array: Array) -> None:
    assert array.attempt(2, "stopped") == 75
    assert array.calls() == "requeue Incomplete 12_2\n"


def test_what_waits_for_the_array_waits_for_each_successor_too(array: Array) -> None:
    array.command("scontrol", f'[ "$1" = requeue ] && echo disabled && exit 1; echo "$*" >>{array.run.path}/calls')
    for shard, successor in ((0, 31), (2, 32)):
        array.command("sbatch", f'echo "sbatch $*" >>{array.run.path}/calls; echo {successor}')
        assert array.attempt(shard, "stopped") == 0  # a failure would cancel what waits
    script = [array.run.shard("tag", shard).attempt_dir(1) / "sbatch.sh" for shard in (0, 2)]
    assert [line for line in array.calls().splitlines() if not line.startswith("show")] == [
        f"sbatch --parsable --dependency=afterany:12_0 --array=0 --comment=stage:tag after:12_0:1 {script[0]}",
        "update JobId=20 Dependency=afterok:12:31",
        f"sbatch --parsable --dependency=afterany:12_2 --array=2 --comment=stage:tag after:12_2:1 {script[1]}",
        "update JobId=20 Dependency=afterok:12:31:32",
    ]
    assert array.run.job_file(0).read_text() == "12:31:32\n"


def test_a_number_of_the_next_stage_that_another_job_has_got_is_left_alone(array: Array) -> None:
    array.command(
        "scontrol",
        f'echo "$*" >>{array.run.path}/calls; case $1 in requeue) echo disabled; exit 1 ;; '
        'show) echo "JobId=20 JobName=other JobState=PENDING" ;; esac',
    )
    array.command("sbatch", "echo 31")
    assert array.attempt(0, "stopped") == 1
    assert "update" not in array.calls()


def test_a_successor_is_of_the_same_array_to_the_run_and_forgets_no_shard_that_was_given_up(array: Array) -> None:
    array.command("scontrol", '[ "$1" = requeue ] && echo disabled && exit 1; true')
    array.command("sbatch", "echo 31")
    assert array.attempt(1, "crashed") == 78
    assert array.attempt(0, "stopped") == 0
    assert array.attempt(2, "finished") == 0
    assert array.attempt(0, "finished", array=31) == 0
    reason = "1 of 3 shards of stage tag given up; shard 1: rank 0: why"
    assert array.said() == [("started", None), ("shard_given_up", "shard 1: rank 0: why"), ("failed", reason)]
    assert array.run.last_attempt() == 1


def test_where_nothing_can_be_handed_over_what_waits_is_not_let_go(array: Array) -> None:
    array.command("scontrol", 'case "$1" in requeue) echo disabled; exit 1 ;; update) exit 1 ;; esac')
    array.command("sbatch", "echo 31")
    assert array.attempt(0, "stopped") == 1  # afterok does not hold any more, and SLURM removes the job


def test_a_stage_that_has_finished_leaves_no_failures_to_the_next(array: Array) -> None:
    assert array.attempt(0, "crashed", shards=1) == 78
    (array.run.shards_dir / "tag/.given-up/0").unlink()
    array.run.ended_file.unlink()
    assert array.attempt(0, "finished", shards=1, array=13) == 0
    outcome = read_attempt_outcome(array.run, 2)
    assert outcome is not None
    assert (outcome.status, outcome.failures) == ("stage_finished", 0)
