"""Checkpoints seen from outside: found, verified, thinned out, set aside, carried over; nothing is lost on the way."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.train.folders import damage, save
from xgen.runs import RunDir
from xgen.train import ckpt_admin
from xgen.train.ckpt_admin import Checkpoint, Rule, Unsafe, carry, check, choose, delete, reasons, set_aside, survey


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "train-abc234")
    made.create()
    return made


def names(run: RunDir) -> list[str]:
    return sorted(path.name for path in run.checkpoints_dir.iterdir())


def states(run: RunDir) -> dict[str, str]:
    return {c.name: c.state for c in survey(run)}


def sound(checkpoint: Checkpoint) -> bool:
    return check([checkpoint])[0].state == "verified"


def doomed(run: RunDir, rule: Rule, is_sound: Callable[[Checkpoint], bool] = sound) -> list[int]:
    return [c.step for c in choose(survey(run), rule, [], is_sound)]


def test_every_kind_of_folder_is_named_for_what_it_is(run: RunDir) -> None:
    for step in (9, 10, 30, 40, 50):
        save(run, step)
    (run.checkpoints_dir / "step-10/manifest.json").unlink()
    torn = run.checkpoints_dir / "step-30/manifest.json"
    torn.write_bytes(torn.read_bytes()[:200])
    (run.checkpoints_dir / "step-40").rename(run.checkpoints_dir / "step-40.rejected-2")
    (run.checkpoints_dir / "step-50").rename(run.checkpoints_dir / "step-50.rolled-back-1")
    (run.checkpoints_dir / ".step-60.2.tmp").mkdir()
    (run.checkpoints_dir / "notes").mkdir()
    (run.checkpoints_dir / "step-70").write_text("a file")
    assert states(run) == {
        "step-9": "complete",
        "step-10": "broken",
        "step-30": "broken",
        "step-40.rejected-2": "rejected",
        "step-50.rolled-back-1": "rolled back",
        ".step-60.2.tmp": "unfinished",
    }
    found = {c.step: c for c in survey(run)}
    assert found[10].faults == ("manifest.json: No such file or directory",)
    assert found[30].faults[0].startswith("manifest.json: cannot be read: ")
    assert (found[9].size - 3000, found[9].saved_at) == (
        (run.checkpoints_dir / "step-9/manifest.json").stat().st_size,
        1.7e9 + 9,
    )


def test_a_program_s_own_manifest_is_complete_where_it_is_expected(run: RunDir) -> None:
    folder = run.checkpoints_dir / "step-5"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}\n")
    assert [(c.state, c.manifest, c.faults) for c in survey(run, foreign=True)] == [("complete", None, ())]
    assert [c.state for c in survey(run)] == ["broken"]
    assert [c.state for c in check(survey(run, foreign=True))] == ["complete"]  # not verified


def test_verification_names_every_fault_of_every_file(run: RunDir) -> None:
    for step in (1, 2, 3):
        save(run, step)
    damage(run.checkpoints_dir / "step-2")
    (run.checkpoints_dir / "step-2/.metadata").unlink()
    os.truncate(run.checkpoints_dir / "step-3/__0_0.distcp", 10)
    read: list[int] = []
    checked = check(survey(run), read.append)
    assert [(c.step, c.state) for c in checked] == [(1, "verified"), (2, "broken"), (3, "broken")]
    assert checked[1].faults == (
        ".metadata: No such file or directory",
        "__1_0.distcp: its checksum is not the manifest's",
    )
    assert checked[2].faults == ("__0_0.distcp: truncated: 10 of 1000 bytes",)
    assert read == [1000 * number for number in range(1, 10)]


def test_reasons_are_those_of_the_rule(run: RunDir) -> None:
    for step, loss in ((10, 3.0), (20, 1.0), (30, 2.0), (40, 2.5), (50, None)):
        save(run, step, loss=loss)
    assert reasons(survey(run), Rule(2, 20, 1)) == {
        20: ["every 20", "best 1"],
        40: ["last 2", "every 20"],
        50: ["last 2"],
    }
    assert doomed(run, Rule(2, 20, 1)) == [10, 30]
    assert doomed(run, Rule(1)) == [10, 20, 30, 40]


def test_a_prune_reads_one_that_stays_and_no_more(run: RunDir) -> None:
    for step in (10, 20, 30):
        save(run, step)
    asked: list[int] = []

    def is_sound(checkpoint: Checkpoint) -> bool:
        asked.append(checkpoint.step)
        return sound(checkpoint)

    assert (doomed(run, Rule(2), is_sound), asked) == ([10], [30])
    damage(run.checkpoints_dir / "step-30")
    assert (doomed(run, Rule(2), is_sound), asked[1:]) == ([10], [30, 20])
    assert (doomed(run, Rule(3), is_sound), asked[3:]) == ([], [])  # nothing to delete, nothing to read


def test_the_only_one_that_verifies_is_never_deleted(run: RunDir) -> None:
    for step in (10, 20, 30, 40):
        save(run, step)
    for step in (20, 30, 40):
        damage(run.checkpoints_dir / f"step-{step}")
    assert doomed(run, Rule(2)) == [20]
    damage(run.checkpoints_dir / "step-10")
    with pytest.raises(Unsafe, match="no complete checkpoint verifies"):
        doomed(run, Rule(2))


def test_two_prunes_at_once_delete_each_checkpoint_once(run: RunDir) -> None:
    sizes = {step: sum(f.stat().st_size for f in save(run, step).iterdir()) for step in range(1, 41)}
    found = survey(run)
    with ThreadPoolExecutor(4) as pool:
        freed = list(pool.map(lambda _: sum(delete(c) for c in found if c.step <= 38), range(4)))
    assert sum(freed) == sum(size for step, size in sizes.items() if step <= 38)
    assert names(run) == ["step-39", "step-40"]


def test_killed_between_rename_and_delete_the_rest_is_cleared_up_later(run: RunDir) -> None:
    for step in (1, 2):
        save(run, step)
    code = (
        "import os, shutil, signal, sys\nfrom pathlib import Path\n"
        "from xgen.runs import RunDir\nfrom xgen.train import ckpt_admin\n"
        "ckpt_admin.shutil.rmtree = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "ckpt_admin.delete(ckpt_admin.survey(RunDir(Path(sys.argv[1])))[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run.path)], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL
    found = survey(run)
    assert [(c.step, c.state) for c in found] == [(1, "unfinished"), (2, "complete")]
    assert run.checkpoint_steps() == [2]
    assert list(run.checkpoints_dir.glob(".step-*.tmp"))  # what the next attempt removes
    assert delete(found[0]) > 3000
    assert names(run) == ["step-2"]


def test_a_rollback_that_is_cut_short_leaves_the_older_ones_in_their_place(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (9, 10, 11):
        save(run, step)
    renamed: list[str] = []

    def fail_at_the_second(folder: Path) -> None:
        renamed.append(folder.name)
        if len(renamed) == 2:
            raise KeyboardInterrupt

    newer = [c for c in survey(run) if c.step > 9]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ckpt_admin, "sync_folder", fail_at_the_second)
        set_aside(newer[1:])
        set_aside(newer[:1])
    assert run.checkpoint_steps() == [9]
    assert names(run) == ["step-10.rolled-back-1", "step-11.rolled-back-1", "step-9"]


def test_a_second_rollback_of_a_step_gets_a_number_of_its_own(run: RunDir) -> None:
    for _ in range(2):
        for step in (9, 10):
            if not (run.checkpoints_dir / f"step-{step}").exists():
                save(run, step)
        set_aside([c for c in survey(run) if c.name == "step-10"])
    assert names(run) == ["step-10.rolled-back-1", "step-10.rolled-back-2", "step-9"]


def test_a_carried_checkpoint_is_linked_and_outlives_the_first(run: RunDir, tmp_path: Path) -> None:
    source, target = save(run, 7), tmp_path / "other/step-7"
    assert carry(source, target) == "linked"
    assert (target / ".metadata").stat().st_nlink == 2
    assert delete(survey(run)[0]) == 0  # the disk still holds it
    other = RunDir(tmp_path / "x")
    shutil.move(target, other.checkpoints_dir / "step-7")
    assert check(survey(other))[0].state == "verified"


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links_it_is_copied(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    source, other = save(run, 7), RunDir(tmp_path / "other")

    def link(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    monkeypatch.setattr(os, "link", link)
    assert carry(source, other.checkpoints_dir / "step-7") == "copied"
    assert (source / ".metadata").stat().st_nlink == 1
    shutil.rmtree(source)
    assert check(survey(other))[0].state == "verified"


def test_a_copy_that_is_not_equal_is_not_taken(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save(run, 7)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "cross-device")))
    monkeypatch.setattr(shutil, "copyfile", lambda a, b: Path(b).write_bytes(Path(a).read_bytes()[:-1] + b"!"))
    with pytest.raises(OSError, match="copied with an error: "):
        carry(source, tmp_path / "other/step-7")


def test_a_checkpoint_that_goes_while_it_is_carried_is_no_checkpoint(run: RunDir, tmp_path: Path) -> None:
    source = save(run, 7)
    (source / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError):
        carry(source, tmp_path / "other/step-7")
