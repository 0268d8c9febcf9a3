"""One spec at a time works in a folder, in any number of processes."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.data.curate.steps.conftest import run_all
from xgen.data import StoreError, TokenStore
from xgen.data.curate.steps.run import Shard, run_step
from xgen.spec import Curate

HOLD = """
import sys, time
from pathlib import Path
from xgen.data.curate.steps.run import Shard, Watch, run_step
from xgen.spec import Curate
job = Curate.model_validate_json(Path(sys.argv[1]).read_text())
def stay(num_bytes):
    if num_bytes:
        print("at work", flush=True)
        time.sleep(600)
run_step(job, "tag", Shard(0, 3), Watch(tick=stay))
"""


@pytest.fixture
def held(small: Curate, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of a unit of `small`."""
    run_step(small, "prepare")
    (tmp_path / "spec.json").write_text(small.model_dump_json())
    command = [sys.executable, "-c", HOLD, str(tmp_path / "spec.json")]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "at work\n"
    yield process
    process.kill()
    process.wait()


def test_another_spec_is_refused_at_once_while_one_is_at_work_and_its_own_shards_are_not(
    small: Curate, held: subprocess.Popen[str]
) -> None:
    plan = Path(small.work_folder) / "plan.json"
    before = plan.read_bytes()
    fewer = {"all": small.mixtures["all"].model_copy(update={"tokens": 1_000})}
    for change in ({"seed": 9}, {"mixtures": fewer}):
        other = small.model_copy(update={**change, "name": "other"})
        for step in ("prepare", "tag"):
            said = rf"out\.work: another spec is at work in it: small, on {os.uname().nodename}; let it end, or cancel"
            with pytest.raises(StoreError, match=said):
                run_step(other, step)
    assert plan.read_bytes() == before
    assert run_step(small, "prepare") == "finished"
    assert [run_step(small, "tag", Shard(number, 3)) for number in (1, 2)] == ["finished", "finished"]
    held.kill()
    held.wait()
    run_all(other)
    assert TokenStore.open(Path(other.out) / "all").meta.num_tokens == 1_000


def test_a_step_before_prepare_is_refused_and_leaves_nothing_behind(small: Curate) -> None:
    before = sorted(Path(small.out).parent.iterdir())
    for step in small.steps[1:]:
        with pytest.raises(StoreError, match=r"out\.work: has no plan\.json; run the step prepare first"):
            run_step(small, step)
    assert sorted(Path(small.out).parent.iterdir()) == before


def test_a_file_that_a_killed_process_had_not_written_yet_is_nobodys(small: Curate) -> None:
    work = Path(small.work_folder)
    work.mkdir()
    (work / ".lock").touch()
    assert run_step(small, "prepare") == "finished"


def test_a_file_system_without_locks_is_refused_before_anything_is_done(small: Curate) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", no_locks)
        with pytest.raises(
            StoreError, match="is on a file system without locks: Function not implemented; have it mou"
        ):
            run_step(small, "prepare")
