"""`xgen checkpoints`: the table, verification, prune and rollback, and what each refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.conftest import HELLO, PROFILE, TRAIN, Project
from tests.cluster_unit.conftest import wait_until
from tests.cluster_unit.host import Host
from tests.train.folders import damage, save
from xgen.cluster import local
from xgen.runs import AttemptOutcome, EventWriter, RunDir, read_attempt_outcome, read_events, replay
from xgen.spec.units import format_bytes

NAME = "train-abc234"
CHECKPOINTS = "checkpoint: {every: 10, keep: 2, keep_every: 100, keep_best: 1}\n"


@pytest.fixture
def run(project: Project) -> RunDir:
    """A run that was cancelled at step 130, with five checkpoints."""
    made = RunDir(project.runs / NAME)
    made.create()
    (made.path / "local").mkdir()
    made.spec_file.write_text(TRAIN.replace("store: store", f"store: {project.path}/store") + CHECKPOINTS)
    made.profile_file.write_text(
        PROFILE.format(scheduler="local", request="none").replace(": runs", f": {project.runs}")
    )
    for step, loss in ((90, 2.0), (100, 3.0), (110, 2.5), (120, 2.25), (130, 2.125)):
        save(made, step, loss=loss)
    rank = EventWriter(made, "rank0", 1, "7")
    EventWriter(made, "host", 1, "7").write("started")
    rank.write("checkpoint_durable", step=130)
    rank.write("progress", step=133)
    EventWriter(made, "host", 1, "7").write("cancelled")
    made.attempt_dir(1).mkdir()
    outcome = AttemptOutcome(status="cancelled", durable_step=130, time=time.time())
    (made.attempt_dir(1) / "outcome.json").write_text(outcome.model_dump_json() + "\n")
    made.cancelled_file.touch()
    return made


def checkpoints(project: Project, *arguments: str, **keys: dict[str, str]) -> tuple[int, list[str], list[str]]:
    done = project.xgen("checkpoints", NAME, *arguments, "--cluster", "local", **keys)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def columns(lines: list[str]) -> list[list[str]]:
    """Cells of the table, which two spaces part, without age, size and the total."""
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[:-1]]
    return [[*row[:2], *row[4:]] for row in rows]


def size(run: RunDir, name: str = "") -> str:
    return format_bytes(sum(f.stat().st_size for f in (run.checkpoints_dir / name).rglob("*") if f.is_file()))


def test_the_table_says_what_is_there_and_why_it_stays(project: Project, run: RunDir) -> None:
    (run.checkpoints_dir / "step-90").rename(run.checkpoints_dir / "step-90.rejected-1")
    (run.checkpoints_dir / "step-100/manifest.json").unlink()
    code, lines, said = checkpoints(project)
    assert (code, said) == (0, [])
    assert columns(lines) == [
        ["step", "tokens", "ranks", "loss", "state", "why it stays"],
        ["90", "92.2k", "2 (fsdp 2)", "2.0000", "rejected", "step-90.rejected-1"],
        ["100", "-", "-", "-", "broken", "step-100; manifest.json: No such file or directory"],
        ["110", "113k", "2 (fsdp 2)", "2.5000", "complete", "-"],
        ["120", "123k", "2 (fsdp 2)", "2.2500", "complete", "last 2"],
        ["130", "133k", "2 (fsdp 2)", "2.1250", "complete", "last 2, best 1"],
    ]
    assert lines[-1] == f"3 complete, 2 others, {size(run)} in {run.checkpoints_dir}"
    document = json.loads(project.xgen("checkpoints", NAME, "130", "--cluster", "local", "--json").stdout)
    assert (document["origin"], document["rule"]) == (None, {"keep": 2, "keep_every": 100, "keep_best": 1})
    facts = document["checkpoints"][0]
    assert (facts["step"], facts["state"], facts["kept_by"]) == (130, "complete", ["last 2", "best 1"])
    assert (facts["tokens"], facts["ranks"], facts["mesh"]["fsdp"], facts["faults"]) == (133120, 2, 2, [])


def test_no_checkpoints_is_not_an_error(project: Project, run: RunDir) -> None:
    shutil.rmtree(run.checkpoints_dir)
    assert checkpoints(project) == (0, [f"{NAME} has no checkpoints yet"], [])
    assert checkpoints(project, "--prune")[:2] == (0, [f"{NAME}: nothing to delete; the rule keeps all 0"])
    assert checkpoints(project, "--rollback", "5") == (
        2, [], [f"--rollback: {NAME} has no complete checkpoint of step 5; it has none that is complete"],
    )  # fmt: skip


def test_verify_names_every_fault_and_exits_with_1(project: Project, run: RunDir) -> None:
    code, lines, said = checkpoints(project, "--verify", "120", "130")
    assert (code, said) == (0, [])
    assert [row[4] for row in columns(lines)[1:]] == ["verified", "verified"]
    damage(run.checkpoints_dir / "step-120")
    (run.checkpoints_dir / "step-130/.metadata").unlink()
    code, lines, said = checkpoints(project, "--verify")
    assert (code, [row[4] for row in columns(lines)[1:]]) == (1, ["verified"] * 3 + ["broken"] * 2)
    assert said == [
        "step-120: __1_0.distcp: its checksum is not the manifest's",
        "step-130: .metadata: No such file or directory",
    ]


def test_prune_deletes_by_the_spec_s_rule_and_says_what_it_freed(project: Project, run: RunDir) -> None:
    what = size(run, "step-110")
    would = checkpoints(project, "--prune", "--dry-run")
    assert would == (0, [f"would delete step-110, {what}", f"would free up to {what}"], [])
    assert run.checkpoint_steps() == [90, 100, 110, 120, 130]
    assert checkpoints(project, "--prune") == (0, [f"deleted step-110, {what}", f"freed {what}"], [])
    assert run.checkpoint_steps() == [90, 100, 120, 130]  # best, every 100, the last two
    assert checkpoints(project, "--prune") == (0, [f"{NAME}: nothing to delete; the rule keeps all 4"], [])


def test_prune_by_a_rule_of_one_s_own(project: Project, run: RunDir) -> None:
    assert checkpoints(project, "--prune", "--keep", "1")[0] == 0
    assert run.checkpoint_steps() == [130]


def test_prune_deletes_what_was_set_aside_only_when_told(project: Project, run: RunDir) -> None:
    folder = run.checkpoints_dir
    (folder / "step-110").rename(folder / "step-110.rejected-1")
    (folder / "step-120").rename(folder / "step-120.rolled-back-1")
    (folder / ".step-140.1.tmp").mkdir()
    (folder / "step-100/manifest.json").write_text("{")
    assert checkpoints(project, "--prune")[1] == [f"{NAME}: nothing to delete; the rule keeps all 2"]
    assert checkpoints(project, "--prune", "--rejected")[0] == 0
    assert sorted(p.name for p in folder.iterdir()) == ["step-120.rolled-back-1", "step-130", "step-90"]
    assert checkpoints(project, "--prune", "--rolled-back")[0] == 0
    assert sorted(p.name for p in folder.iterdir()) == ["step-130", "step-90"]


def test_prune_leaves_the_only_one_that_verifies(project: Project, run: RunDir) -> None:
    for step in (90, 100, 120, 130):
        damage(run.checkpoints_dir / f"step-{step}")
    assert checkpoints(project, "--prune", "--keep", "2")[0] == 0
    assert run.checkpoint_steps() == [110, 120, 130]
    damage(run.checkpoints_dir / "step-110")
    before = project.files()
    code, lines, said = checkpoints(project, "--prune", "--keep", "1")
    assert (code, lines) == (2, [])
    assert said == [
        f"{NAME}: no complete checkpoint verifies, so none is deleted; "
        f"xgen checkpoints {NAME} --verify names the faults"
    ]
    assert project.files() == before


def test_two_prunes_at_once_delete_once(project: Project, run: RunDir) -> None:
    what = size(run, "step-110")
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: checkpoints(project, "--prune"), range(2)))
    assert sorted(lines for _, lines, _ in done) == [
        [f"deleted step-110, {what}", f"freed {what}"],
        [f"{NAME}: nothing to delete; the rule keeps all 4"],
    ]


@pytest.fixture
def running(run: RunDir) -> RunDir:
    run.cancelled_file.unlink()
    for file in run.events_dir.iterdir():
        file.unlink()
    EventWriter(run, "host", 1, "7").write("started")
    (run.attempt_dir(1) / "outcome.json").unlink()
    return run


def test_beside_a_running_trainer_only_that_goes_which_it_would_delete(
    project: Project, running: RunDir, tmp_path: Path
) -> None:
    (running.path / "local").rmdir()
    running.profile_file.write_text(running.profile_file.read_text().replace("local", "slurm").replace("none", "gres"))
    squeue = tmp_path / "squeue"
    squeue.write_text(f'#!/bin/sh\necho "7|{NAME}|RUNNING|None|gpu|n1|N/A|0|"\n')
    squeue.chmod(0o755)
    here = {"env": {"PATH": f"{tmp_path}:{os.environ['PATH']}"}}
    (running.checkpoints_dir / ".step-140.1.tmp").mkdir()
    for arguments, what in (
        (("--keep", "1"), "step-90, step-100, step-120"),
        (("--rejected",), ".step-140.1.tmp"),
    ):
        assert checkpoints(project, "--prune", *arguments, **here) == (
            2, [], [f"{NAME} is running as job 7, and its trainer keeps {what}; "
                    f"write xgen cancel {NAME} first, or --prune alone"],
        )  # fmt: skip
    assert checkpoints(project, "--rollback", "100", **here) == (
        2, [], [f"{NAME} is running as job 7; write xgen cancel {NAME} first"],
    )  # fmt: skip
    assert running.checkpoint_steps() == [90, 100, 110, 120, 130]
    assert checkpoints(project, "--prune", **here)[0] == 0
    assert running.checkpoint_steps() == [90, 100, 120, 130]


def test_where_nobody_says_whether_it_runs_nothing_is_deleted(project: Project, running: RunDir) -> None:
    (running.path / "local").rmdir()
    running.profile_file.write_text(running.profile_file.read_text().replace("local", "slurm").replace("none", "gres"))
    for arguments in (("--prune",), ("--rollback", "100")):
        code, lines, said = checkpoints(project, *arguments, env={"PATH": "/nonexistent"})
        assert (code, lines) == (3, [])
        assert said == ["the scheduler: squeue is not on PATH: there is no SLURM client on this machine"]
    assert running.checkpoint_steps() == [90, 100, 110, 120, 130]


def test_after_a_rollback_the_run_and_its_records_stand_at_that_step(project: Project, run: RunDir) -> None:
    (run.checkpoints_dir / "step-120/manifest.json").unlink()  # a broken one in between goes too
    would = checkpoints(project, "--rollback", "110", "--dry-run")
    assert would == (
        0, ["would set aside step-130", "would set aside step-120",
            f"{NAME} would begin at step 110, which verifies: xgen resume {NAME}"], [],
    )  # fmt: skip
    assert run.checkpoint_steps() == [90, 100, 110, 130]
    aside = ["step-130.rolled-back-1", "step-120.rolled-back-1"]
    assert checkpoints(project, "--rollback", "110") == (
        0, [*(f"set aside as {name}" for name in aside),
            f"{NAME} begins at step 110, which verifies: xgen resume {NAME}"], [],
    )  # fmt: skip
    assert run.checkpoint_steps() == [90, 100, 110]
    assert {row[0]: row[4] for row in columns(checkpoints(project)[1])[1:]}["130"] == "rolled back"
    event = read_events(run)[-1]
    assert (event.event, event.step, event.reason) == ("rolled_back", 110, f"{', '.join(aside)} set aside")
    ledger = replay(read_events(run))
    assert (ledger.durable_step, ledger.highest_step) == (110, 133)  # steps up to 133 count as replay
    outcome = read_attempt_outcome(run, 1)
    assert outcome is not None
    assert (outcome.status, outcome.durable_step) == ("cancelled", 110)
    assert "step 133, saved 110" in project.xgen("status", NAME, "--cluster", "local").stdout
    number = len(read_events(run))
    assert checkpoints(project, "--rollback", "110")[0] == 0  # once more says the same, and does nothing
    assert len(read_events(run)) == number
    run.profile_file.write_text(run.profile_file.read_text() + f"container: {{python: {shutil.which('true')}}}\n")
    try:
        assert project.xgen("resume", NAME, "--cluster", "local").stdout.endswith(" from step 110\n")
    finally:
        local.send(run, signal.SIGTERM)
        wait_until(lambda: not local.is_alive(run), lambda: "the end of the run")


def test_a_rollback_that_was_killed_before_it_was_told_is_told_by_the_next(project: Project, run: RunDir) -> None:
    for step in (120, 130):
        folder = run.checkpoints_dir / f"step-{step}"
        folder.rename(f"{folder}.rolled-back-1")
    assert checkpoints(project, "--rollback", "110")[0] == 0
    assert replay(read_events(run)).durable_step == 110


@pytest.mark.parametrize(("step", "begins"), [("110", "broad"), ("130", "anneal")])
def test_after_a_rollback_into_a_finished_stage_its_job_trains_again(
    project: Project, run: RunDir, tmp_path: Path, step: str, begins: str
) -> None:
    stages = "  - {name: anneal, tokens: 10k}\n"
    spec = run.spec_file.read_text().replace("name: only", "name: broad").replace("tokens: 80k", "tokens: 133120")
    run.spec_file.write_text(spec.replace(CHECKPOINTS, stages + CHECKPOINTS))  # 130 steps of broad, then 10
    finished = AttemptOutcome(status="stage_finished", stage=0, durable_step=130, time=time.time())
    (run.attempt_dir(1) / "outcome.json").write_text(finished.model_dump_json() + "\n")
    run.attempt_dir(2).mkdir()  # of anneal: its node was lost before it saved anything
    assert checkpoints(project, "--rollback", step)[0] == 0
    host = Host(tmp_path / "host")
    shutil.rmtree(host.run.path)
    run.path.rename(host.run.path)
    host.run.cancelled_file.unlink()  # as xgen resume does
    host.run.resumed_file.touch()
    for _ in range(2):  # the first is lost without a word, and SLURM requeues it by itself
        broad = host.bash("begin_attempt", attempt=2, last=1, name="broad")
        assert broad.returncode == 0
        assert ("has nothing to do" in broad.stderr) is (begins == "anneal")
    started = [e.stage for e in read_events(host.run) if e.event == "started" and e.stage]
    assert started == (["broad", "broad"] if begins == "broad" else [])


def test_no_rollback_to_what_does_not_verify(project: Project, run: RunDir) -> None:
    damage(run.checkpoints_dir / "step-110")
    before = project.files()
    code, _, said = checkpoints(project, "--rollback", "110")
    assert (code, said) == (
        2,
        ["--rollback: step-110 does not verify: __1_0.distcp: its checksum is not the manifest's; "
         "write one of 90, 100, 120, 130"],
    )  # fmt: skip
    assert checkpoints(project, "--rollback", "115")[2] == [
        f"--rollback: {NAME} has no complete checkpoint of step 115; write one of 90, 100, 110, 120, 130"
    ]
    assert project.files() - before <= {f"runs/{NAME}/.resume.lock"}


def test_a_finished_run_is_forked_and_not_rolled_back(project: Project, run: RunDir) -> None:
    EventWriter(run, "host", 1, "7").write("finished")
    assert checkpoints(project, "--rollback", "110")[::2] == (
        2, [f"{NAME} has finished, and cannot go on; write xgen fork {NAME}@110"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--verify", "--prune"), "--verify, --prune and --rollback are three commands; write one of them"),
        (("--keep", "2"), "--keep goes with --prune; add it"),
        (("--rejected",), "--rejected goes with --prune; add it"),
        (("--prune", "--keep", "0"), "--keep: 0 is less than 1; write 1 or more"),
        (("--dry-run",), "--dry-run: nothing would be changed anyway; leave it out"),
        (("--prune", "100"), "100: a step goes with --verify, or after --rollback"),
        (("--verify", "105"), f"{NAME} has no checkpoint of step 105; write one of 90, 100, 110, 120, 130"),
    ],
)
def test_a_mistake_is_one_line(project: Project, run: RunDir, arguments: tuple[str, ...], message: str) -> None:
    assert checkpoints(project, *arguments) == (2, [], [message])


def test_a_command_s_checkpoints_are_its_own(project: Project, run: RunDir) -> None:
    run.spec_file.write_text(HELLO)
    for step in (90, 100):
        (run.checkpoints_dir / f"step-{step}/manifest.json").write_text("{}\n")
    code, lines, _ = checkpoints(project, "90")
    assert (code, columns(lines)[1]) == (0, ["90", "-", "-", "-", "complete", "-"])
    assert checkpoints(project, "--prune")[::2] == (
        2, [f"{NAME} is a command, whose checkpoints are its own; --prune knows those of pretrain runs"],
    )  # fmt: skip
    assert checkpoints(project, "--rollback", "100")[::2] == (
        2, [f"{NAME} is a command, whose checkpoints are its own; write xgen fork {NAME}@100"],
    )  # fmt: skip
    assert run.checkpoint_steps() == [90, 100, 110, 120, 130]


def test_listing_needs_no_torch(project: Project, run: RunDir) -> None:
    from tests.cli.test_imports import HEAVY, modules_of

    for arguments in ((), ("--verify",)):
        loaded = modules_of(project, "checkpoints", NAME, *arguments, "--cluster", "local")
        assert loaded & HEAVY == set()
