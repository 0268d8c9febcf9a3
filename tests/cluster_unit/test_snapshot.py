"""What is submitted is what runs: the snapshot of a real git checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster_unit.conftest import Bench, exit_code, tell
from xgen.cluster.snapshot import check_command, inspect_code, take_snapshot
from xgen.runs import RunDir
from xgen.spec import Command, SpecError


def git(folder: Path, *arguments: str) -> str:
    identity = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = os.environ | identity | {"GIT_CONFIG_GLOBAL": "/dev/null"}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "pkg").mkdir(parents=True)
    (folder / ".gitignore").write_text("ignored*\n")
    (folder / "pkg/a.py").write_text("A = 1\n")
    (folder / "pkg/b.py").write_text("B = 1\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "runs/demo-abc234")
    made.create()
    return made


def tree(folder: Path) -> dict[str, str]:
    """Names and contents, without git's own and without xgen, which goes into every snapshot."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {name: (folder / name).read_text() for name in names if not name.startswith((".git/", "xgen/"))}


def test_a_clean_checkout_is_pinned_to_its_commit(checkout: Path, run: RunDir) -> None:
    code = inspect_code(checkout)
    assert (code.changed, len(code.files)) == ((), 3)
    take_snapshot(code, run, run.path.parent)
    assert tree(run.code_dir) == tree(checkout)
    assert (run.path / "code.commit").read_text() == git(checkout, "rev-parse", "HEAD") + "\n"
    assert (run.path / "code.diff").read_text() == ""
    assert str(code) == f"{git(checkout, 'rev-parse', 'HEAD')[:7]}, 3 files, {code.num_bytes}B"


def test_a_persons_commit_meanwhile_finds_no_lock(checkout: Path) -> None:
    for file in (checkout / "pkg").iterdir():
        os.utime(file, (0, 0))  # git would note in its index that they are as they were
    index = checkout / ".git/index"
    before = index.read_bytes()
    inspect_code(checkout)
    assert index.read_bytes() == before


def test_changes_are_copied_and_kept_as_a_diff_that_applies(checkout: Path, run: RunDir, tmp_path: Path) -> None:
    (checkout / "pkg/a.py").write_text("A = 2\n")
    (checkout / "pkg/b.py").unlink()
    (checkout / "new file ü.py").write_text("N = 1\n")
    (checkout / "ignored.bin").write_text("large")
    code = inspect_code(checkout)
    assert sorted(code.changed) == ["new file ü.py", "pkg/a.py", "pkg/b.py"]
    take_snapshot(code, run, run.path.parent)
    assert tree(run.code_dir) == {".gitignore": "ignored*\n", "pkg/a.py": "A = 2\n", "new file ü.py": "N = 1\n"}
    again = tmp_path / "again"
    git(tmp_path, "clone", "-q", str(checkout), str(again))
    git(again, "checkout", "-q", (run.path / "code.commit").read_text().strip())
    git(again, "apply", str(run.path / "code.diff"))
    assert tree(again) == {".gitignore": "ignored*\n", "pkg/a.py": "A = 2\n"}


def test_staged_changes_are_in_the_diff(checkout: Path, run: RunDir) -> None:
    (checkout / "pkg/a.py").write_text("A = 3\n")
    (checkout / "staged.py").write_text("S = 1\n")
    git(checkout, "add", "-A")
    take_snapshot(inspect_code(checkout), run, run.path.parent)
    diff = (run.path / "code.diff").read_text()
    assert "+A = 3" in diff
    assert "+S = 1" in diff


def test_links_stay_links_and_modes_stay_modes(checkout: Path, run: RunDir) -> None:
    (checkout / "link.py").symlink_to("pkg/a.py")
    (checkout / "tool.sh").write_text("#!/bin/sh\n")
    (checkout / "tool.sh").chmod(0o755)
    take_snapshot(inspect_code(checkout), run, run.path.parent)
    assert (run.code_dir / "link.py").readlink() == Path("pkg/a.py")
    assert (run.code_dir / "tool.sh").stat().st_mode & 0o777 == 0o555
    assert (run.code_dir / "pkg/a.py").stat().st_mode & 0o777 == 0o444  # other runs have the same file


def test_before_the_first_commit_there_is_a_snapshot_but_no_commit(tmp_path: Path, run: RunDir) -> None:
    folder = tmp_path / "fresh"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "a.py").write_text("A = 1\n")
    code = inspect_code(folder)
    assert (code.commit, code.files) == ("", ("a.py",))
    assert str(code) == "no commit + 1 changed files (untracked: a.py), 1 files, 6B"
    take_snapshot(code, run, run.path.parent)
    assert tree(run.code_dir) == {"a.py": "A = 1\n"}


def test_outside_a_checkout_nothing_is_pinned_and_that_is_said(tmp_path: Path, run: RunDir) -> None:
    code = inspect_code(tmp_path)
    assert code.files == ()
    assert str(code) == f"{tmp_path} is no git checkout: of its files none is pinned, xgen is as installed"
    take_snapshot(code, run, run.path.parent)
    assert tree(run.code_dir) == {}
    assert (run.code_dir / "xgen/cli/task.py").is_file()  # what runs in the container all the same
    assert not (run.path / "code.commit").exists()


def test_a_checkout_that_is_too_large_names_its_largest_file(checkout: Path) -> None:
    with (checkout / "weights.bin").open("wb") as file:
        file.truncate(300 * 2**20)
    git(checkout, "add", "weights.bin")
    with pytest.raises(SpecError) as caught:
        inspect_code(checkout)
    assert str(caught.value) == (
        f"{checkout}: the code snapshot would hold 300MB, the most is 256MB; "
        "add large files to .gitignore, the largest is weights.bin (300MB)"
    )


def test_a_large_file_that_git_does_not_know_is_refused_by_name(checkout: Path) -> None:
    with (checkout / "data.bin").open("wb") as file:
        file.truncate(17 * 2**20)
    with pytest.raises(SpecError) as caught:
        inspect_code(checkout)
    assert str(caught.value) == (
        f"{checkout}/data.bin: is untracked, has 17MB, and would be copied for every run; "
        "add it to .gitignore and mount it, or commit it"
    )


def test_a_command_that_needs_a_file_the_snapshot_lacks_is_refused(checkout: Path) -> None:
    (checkout / "ignored.py").write_text("pass\n")
    (checkout / "new.py").write_text("pass\n")
    code = inspect_code(checkout)
    for word in ("new.py", "./new.py", "pkg/a.py", "nowhere.py", "-c", "/bin/true"):
        check_command(command(["python3", word]), code)
    with pytest.raises(SpecError, match=r"^command\[1\]: ignored.py is ignored by git.*git add --force ignored.py"):
        check_command(command(["python3", "ignored.py"]), code)


def command(words: list[str]) -> Command:
    resources = {"nodes": 1, "time": "1m"}
    return Command.model_validate({"kind": "command", "name": "a", "command": words, "resources": resources})


def test_the_second_run_of_the_same_code_shares_its_files(checkout: Path, run: RunDir) -> None:
    take_snapshot(inspect_code(checkout), run, run.path.parent)
    other = RunDir(run.path.with_name("demo-def234"))
    other.create()
    take_snapshot(inspect_code(checkout), other, run.path.parent)
    assert (other.code_dir / "pkg/a.py").samefile(run.code_dir / "pkg/a.py")
    (checkout / "pkg/a.py").write_text("A = 2\n")
    third = RunDir(run.path.with_name("demo-ghi234"))
    third.create()
    take_snapshot(inspect_code(checkout), third, run.path.parent)
    assert (third.code_dir / "pkg/a.py").read_text() == "A = 2\n"
    assert (run.code_dir / "pkg/a.py").read_text() == "A = 1\n"


def _lose(file: Path) -> None:
    file.unlink()


def _edit(file: Path) -> None:
    file.chmod(0o644)
    file.write_text("B = 9\n")


def _empty(file: Path) -> None:
    os.truncate(file, 0)  # as a host that died before its disk had it


@pytest.mark.parametrize("damage", [_lose, _edit, _empty])
def test_a_shared_snapshot_that_was_damaged_is_made_anew(
    checkout: Path, run: RunDir, damage: Callable[[Path], None]
) -> None:
    take_snapshot(inspect_code(checkout), run, run.path.parent)
    (shared,) = (run.path.parent / ".code").iterdir()
    damage(shared / "pkg/b.py")
    for name in ("demo-def234", "demo-ghi234"):
        other = RunDir(run.path.with_name(name))
        other.create()
        take_snapshot(inspect_code(checkout), other, run.path.parent)
        assert tree(other.code_dir) == tree(checkout)
    assert (other.code_dir / "pkg/b.py").samefile(shared / "pkg/b.py")


@pytest.mark.parametrize("content", [b"A = '\xe9'\n", b"A = 2\r\nB = 3\r\n"], ids=["latin-1", "crlf"])
def test_the_diff_is_kept_byte_by_byte(checkout: Path, run: RunDir, tmp_path: Path, content: bytes) -> None:
    (checkout / "pkg/a.py").write_bytes(content)
    git(checkout, "config", "diff.external", "/bin/false")
    take_snapshot(inspect_code(checkout), run, run.path.parent)
    again = tmp_path / "again"
    git(tmp_path, "clone", "-q", str(checkout), str(again))
    git(again, "apply", str(run.path / "code.diff"))
    assert (again / "pkg/a.py").read_bytes() == (run.code_dir / "pkg/a.py").read_bytes() == content


def test_submodules_and_nested_checkouts_go_along(checkout: Path, run: RunDir, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "lib.py").write_text("L = 1\n")
    git(library, "init", "-q")
    git(library, "add", "-A")
    git(library, "commit", "-qm", "first")
    git(checkout, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "module")
    git(tmp_path, "clone", "-q", str(library), str(checkout / "nested"))
    take_snapshot(inspect_code(checkout), run, run.path.parent)
    assert (run.code_dir / "module/lib.py").read_text() == (run.code_dir / "nested/lib.py").read_text() == "L = 1\n"


def test_a_checkout_that_git_does_not_read_is_an_error_and_not_no_checkout(checkout: Path) -> None:
    (checkout / ".git/HEAD").write_text("nonsense\n")
    with pytest.raises(SpecError, match=f"^{checkout}: is a checkout that git does not read: fatal: "):
        inspect_code(checkout)


def test_a_checkout_of_somebody_else_is_named_with_the_fix(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch for its own tests
    with pytest.raises(SpecError, match=r"dubious ownership in .*; submit from a clone of your own$"):
        inspect_code(checkout)


def test_a_file_that_goes_between_the_listing_and_the_copy_is_left_out(checkout: Path, run: RunDir) -> None:
    code = inspect_code(checkout)
    (checkout / "pkg/b.py").unlink()
    take_snapshot(code, run, run.path.parent)
    assert set(tree(run.code_dir)) == {".gitignore", "pkg/a.py"}


def test_a_checkout_that_is_edited_later_does_not_change_the_run(bench: Bench) -> None:
    """The job waits for a file; in the meantime a person edits what it will read and import."""
    (bench.path / "work.py").write_text("VALUE = 'submitted'\n")
    (bench.path / ".gitignore").write_text("runs/\n")
    git(bench.path, "init", "-q")
    git(bench.path, "add", "-A")
    git(bench.path, "commit", "-qm", "first")
    program = (
        "import os, pathlib, time\n"
        "run = pathlib.Path(os.environ['XGEN_RUN_DIR'])\n"
        "while not (run / 'go').exists(): time.sleep(0.02)\n"
        "import work\n"
        "(run / 'seen').write_text(work.VALUE + ' ' + open('work.py').read())\n"
    )
    run = bench.submit([sys.executable, "-c", program], resources={"gpus_per_node": 1})
    (bench.path / "work.py").write_text("VALUE = 'edited'\n")
    (run.path / "go").touch()
    assert exit_code(run) == 0, tell(run)
    assert (run.path / "seen").read_text() == "submitted VALUE = 'submitted'\n"
