"""Why an attempt died: the first error over all ranks, and what is known about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from xgen.cluster.deaths import CAUSES, first_error, lost_a_node
from xgen.runs import RankOutcome, RunDir

TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 3, in f\n    g()\n'


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "train-abc234")
    made.create()
    made.attempt_dir(1).mkdir()
    return made


def labelled(rank: int, text: str) -> str:
    return "".join(f"{rank}: {line}\n" for line in text.splitlines())


def crashed(run: RunDir, rank: int, reason: str, time: float) -> None:
    RankOutcome(status="crashed", reason=reason, time=time).write(run, 1, rank)


def test_the_first_rank_that_crashed_counts_not_the_last_that_spoke(run: RunDir) -> None:
    crashed(run, 0, "ConnectionResetError: peer closed", 20.0)
    crashed(run, 3, "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", 12.0)
    (run.attempt_dir(1) / "err.log").write_text(
        labelled(1, "a warning\n")
        + labelled(3, f"{TRACEBACK}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n")
        + labelled(0, f"{TRACEBACK}ConnectionResetError: peer closed\n")
    )
    death = first_error(run, 1)
    assert death is not None
    assert (death.rank, death.error) == (3, "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")
    assert death.meaning == "the GPU's memory is used up"
    assert "micro_batch" in death.fix
    assert death.lines[0] == "Traceback (most recent call last):"
    assert death.lines[-1].startswith("torch.OutOfMemoryError")


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0.", "the node's memory for the job is used up"),
        ("OSError: [Errno 28] No space left on device", "a disk is full, or a quota"),
        ("OSError: [Errno 122] Disk quota exceeded", "a disk is full, or a quota"),
        ("ModuleNotFoundError: No module named 'flash_attn'", "a module or a program is not there"),
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", "a GPU of the node is broken"),
        ("[E] Watchdog caught collective operation timeout: WorkNCCL", "ranks waited for one that did not come"),
        ("Fatal Python error: Bus error", "/dev/shm is too small"),
        (
            "OSError: container.shm: /dev/shm of n2 has 1.2GB free, the spec needs 16GB",
            "a node has less room in /dev/shm than the spec wants",
        ),
        ("slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-11-27 DUE TO NODE FAILURE ***", "SLURM lost a node"),
        ("PermissionError: [Errno 13] Permission denied: '/data'", "it may not write there"),
        ("Fatal Python error: Segmentation fault", "a library crashed"),
        ("xgen: step 812: the loss is not finite", "the training diverged"),
        (
            "slurmstepd: error: execve(): /opt/venv/bin/python: No such file or directory",
            "the program that starts the tasks is not there",
        ),
    ],
)
def test_known_errors_are_told_with_what_they_mean(run: RunDir, line: str, meaning: str) -> None:
    (run.attempt_dir(1) / "err.log").write_text(f"0: fine so far\n1: {line}\n")
    death = first_error(run, 1)
    assert death is not None
    assert death.meaning == meaning
    assert death.error == line


def test_the_page_of_the_causes_has_all_of_them() -> None:
    page = (ROOT / "docs/why.md").read_text(encoding="utf-8").splitlines()
    rows = [f"| {cause.meaning} | {cause.fix or 'mend what `xgen logs RUN` shows'} |" for cause in CAUSES]
    assert [line for line in page if line in rows] == rows


@pytest.mark.parametrize(
    "parts", ["KeyError|: 'loss'", "KeyError: |'loss'", "KeyError|: |'loss'", "KeyError: 'loss'|x"]
)
def test_an_error_that_srun_wrote_in_parts_is_whole(run: RunDir, parts: str) -> None:
    crashed(run, 1, "the command exited with 1", 12.0)
    log = labelled(1, TRACEBACK + parts.replace("|", "\n")) + "1: \n1: more noise\n"
    (run.attempt_dir(1) / "err.log").write_text(log)
    death = first_error(run, 1)
    assert death is not None
    assert death.error == "KeyError: 'loss' (the command exited with 1)"


def test_of_a_command_the_traceback_is_the_error_with_its_node(run: RunDir) -> None:
    crashed(run, 1, "the command exited with 1", 12.0)
    (run.attempt_dir(1) / "err.log").write_text(
        labelled(1, f"{TRACEBACK}KeyError: 'loss'\n") + "srun: error: n2: tasks 0-1: Exited with exit code 1\n"
    )
    death = first_error(run, 1)
    assert death is not None
    assert (death.rank, death.node, death.error) == (1, "n2", "KeyError: 'loss' (the command exited with 1)")


def test_a_command_without_a_word_on_stderr_is_told_by_its_last_lines(run: RunDir) -> None:
    crashed(run, 0, "the command exited with 3", 12.0)
    (run.attempt_dir(1) / "out.log").write_text(labelled(0, "loading shard 7\n\n") + labelled(1, "all is well\n"))
    death = first_error(run, 1)
    assert death is not None
    assert (death.error, death.lines) == ("the command exited with 3", ("loading shard 7",))


def test_a_rank_that_was_killed_is_named_by_srun(run: RunDir) -> None:
    (run.attempt_dir(1) / "err.log").write_text(
        "2: step 10\nsrun: error: n2: task 2: Killed\nsrun: error: n1: tasks 0-1: Terminated\n"
    )
    death = first_error(run, 1)
    assert death is not None
    assert (death.rank, death.error) == (2, "task 2 on n2: Killed")


@pytest.mark.parametrize(
    ("log", "error"),
    [
        ("srun: error: n1: task 0: Exited with exit code 125\nsrun: error: n2: tasks 1-3: Killed\n", "exit code 125"),
        ("1: peer 3 got signal 9\nsrun: error: n1: task 1: Exited with exit code 1\n", "exit code 1"),
    ],
)
def test_only_of_the_first_to_die_it_is_said_that_it_was_killed(run: RunDir, log: str, error: str) -> None:
    (run.attempt_dir(1) / "err.log").write_text(log)
    death = first_error(run, 1)
    assert death is not None
    assert death.error.endswith(error)
    assert death.meaning == ""


def test_the_first_to_die_that_was_killed_is_said_to_be(run: RunDir) -> None:
    log = run.attempt_dir(1) / "err.log"
    log.write_text("srun: error: n2: tasks 1-3: Killed\nsrun: error: n1: task 0: Exited with exit code 1\n")
    killed = first_error(run, 1)
    crashed(run, 0, "the command was killed by signal 9 (Killed)", 1.0)
    told = first_error(run, 1)
    assert killed is not None and told is not None
    assert killed.meaning == told.meaning == CAUSES[-1].meaning


def test_that_a_node_was_lost_is_found_behind_what_its_ranks_said(run: RunDir) -> None:
    assert not lost_a_node(run, 1)
    log = run.attempt_dir(1) / "err.log"
    log.write_text("0: ConnectionResetError: Connection reset by peer\n" * 100_000)
    assert not lost_a_node(run, 1)
    with log.open("a") as more:
        more.write("srun: error: Node failure on n2\n")
    assert lost_a_node(run, 1)


def test_a_traceback_of_what_starts_the_ranks_is_shown(run: RunDir) -> None:
    (run.attempt_dir(1) / "err.log").write_text(f"{TRACEBACK}OSError: no more processes\nxgen: 1 of 1 ranks …\n")
    death = first_error(run, 1)
    assert death is not None
    assert (death.rank, death.error, death.lines[-1]) == (None, *["OSError: no more processes"] * 2)


def test_an_attempt_without_a_word_has_no_first_error(run: RunDir) -> None:
    assert first_error(run, 1) is None
    (run.attempt_dir(1) / "err.log").write_text("0: all is well\n")
    assert first_error(run, 1) is None


def test_a_long_traceback_is_cut_in_its_middle_and_a_broken_outcome_is_none(run: RunDir) -> None:
    deep = "Traceback (most recent call last):\n" + "  File x\n" * 60 + "ValueError: deep\n"
    crashed(run, 0, "ValueError: deep", 1.0)
    (run.attempt_dir(1) / "outcome.1.json").write_text('{"status": "cra')
    (run.attempt_dir(1) / "err.log").write_text(labelled(0, deep) + "0: \x1b[31mafter\n")
    death = first_error(run, 1)
    assert death is not None
    assert (len(death.lines), death.lines[1], death.lines[-1]) == (12, "  …", "ValueError: deep")


def test_of_a_hang_the_stack_of_the_one_that_did_not_come_is_shown(run: RunDir) -> None:
    reason = "hung: no step for 312 s in phase train at step 1,240; rank 1 on n2 stands at train.py:7 planted"
    crashed(run, 1, reason, 1.0)
    (run.attempt_dir(1) / "err.log").write_text("0: Timed out waiting 1800000ms for recv operation\n")
    hang = run.attempt_dir(1) / "hang"
    hang.mkdir()
    (hang / "summary.txt").write_text(
        f"{reason}\n\n1 of 2 ranks: 1  <- the others wait for this one\n  train.py:7 planted\n"
    )
    death = first_error(run, 1)
    assert death is not None
    assert (death.rank, death.error, death.meaning) == (1, reason, "it stood still")
    assert death.lines == ("1 of 2 ranks: 1  <- the others wait for this one", "  train.py:7 planted")
    assert death.fix == "all stacks: attempts/0001/hang/summary.txt"
