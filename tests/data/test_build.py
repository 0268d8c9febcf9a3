"""Building from the command line: idempotent, one at a time, whole or not at all."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.data.conftest import MAX_BYTES, VOCAB_SIZE, build_small
from tests.terminal import Terminal
from xgen.data import StoreError, TokenStore
from xgen.data.build import Build
from xgen.data.staging import exclusive, staged


def command(out: Path, *arguments: str) -> list[str]:
    sizes = [f"--vocab-size={VOCAB_SIZE}", f"--max-bytes={MAX_BYTES}"]
    return [sys.executable, "-m", "xgen.data", "build", "--out", str(out), *sizes, *arguments]


@contextmanager
def started(out: Path, *arguments: str, stderr: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """A build in a process of its own, gone when the block ends."""
    process = subprocess.Popen(command(out, *arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xgen.data", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_two_builds_at_once_give_one_store_equal_to_any_other(build: Build, tmp_path: Path) -> None:
    out = tmp_path / "store"
    with started(out, "--json") as one, started(out, "--json") as other:
        results = [json.loads(process.communicate(timeout=60)[0]) for process in (one, other)]
    assert sorted(result["written"] for result in results) == [False, True]
    assert one.returncode == other.returncode == 0
    assert content(out) == content(build.store.path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".store.lock", "store"]


def test_up_to_date_store_is_left_alone(store_copy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in store_copy.rglob("*")}
    assert not build_small(store_copy).written
    assert before == {path: path.stat().st_mtime_ns for path in store_copy.rglob("*")}


def test_other_recipe_or_broken_store_is_replaced_while_a_reader_keeps_the_old_one(store_copy: Path) -> None:
    reader = TokenStore.open(store_copy)
    assert build_small(store_copy, vocab_size=300).written
    new = TokenStore.open(store_copy)
    assert int(reader.parts[0].tokens.max()) >= 300 > int(new.parts[0].tokens.max())
    (store_copy / "parts/00000-code/offsets.bin").unlink()
    assert build_small(store_copy, vocab_size=300).written
    TokenStore.open(store_copy).verify()


@pytest.mark.parametrize("reached", ["", "/corpus/literature.jsonl.zst", "/00000/tokens.bin"])
def test_killed_build_leaves_nothing_that_opens_and_the_next_one_succeeds(tmp_path: Path, reached: str) -> None:
    out = tmp_path / "store"
    with started(out, "--max-bytes=1500000") as process:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(f".store.*.tmp{reached}")) and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()
        process.wait(timeout=30)
    assert process.returncode == -signal.SIGKILL, "the build ended before it could be killed"
    with pytest.raises(StoreError, match="is no token store"):
        TokenStore.open(out)
    assert build_small(out).written
    TokenStore.open(out).verify()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".store.lock", "store"]


def test_build_gives_up_when_another_does_not_end(tmp_path: Path) -> None:
    with exclusive(tmp_path / "store", wait=0):
        result = run("build", "--out", str(tmp_path / "store"), "--wait=0.2")
    assert result.returncode == 1
    assert result.stderr.startswith(f"{tmp_path}/store: another process has been writing it")
    assert "Traceback" not in result.stderr and result.stdout == ""


def test_failed_block_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "store"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(RuntimeError), staged(target) as folder:
        (folder / "new").touch()
        raise RuntimeError
    assert [p.name for p in tmp_path.rglob("*")] == ["store", "old"]


def test_folder_that_is_no_store_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    result = run("build", "--out", str(tmp_path))
    assert result.returncode == 1
    assert result.stderr == f"{tmp_path}: is there and is no token store; write another --out, or remove it\n"
    assert (tmp_path / "thesis.tex").exists()


def test_verify_says_what_it_found(store_copy: Path) -> None:
    good = run("verify", str(store_copy))
    assert good.returncode == 0 and "verified, 15 files, fingerprint" in good.stdout
    with (store_copy / "parts/00001-reference/tokens.bin").open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff\x01")
    bad = run("verify", str(store_copy), "--json")
    assert (
        bad.returncode == 1
        and "parts/00001-reference/tokens.bin: has another checksum" in bad.stderr
        and bad.stdout == ""
    )


def test_progress_shows_on_a_terminal_only(tmp_path: Path) -> None:
    with Terminal() as terminal, started(tmp_path / "a", stderr=terminal.fd) as process:
        assert process.wait(timeout=60) == 0
    assert "tokenizer" in terminal.shown and "literature" in terminal.shown
    piped = run("build", "--out", str(tmp_path / "a"), *command(tmp_path)[6:])
    assert piped.stderr == "" and "up to date" in piped.stdout


def test_data_package_does_not_import_torch() -> None:
    code = (
        "import sys, xgen.data, xgen.data.build, xgen.data.__main__; "
        "print({'torch', 'tokenizers', 'zstandard', 'rich'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == "set()\n"
