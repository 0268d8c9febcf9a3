"""`xgen data build|info|verify` as a person calls them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.terminal import Terminal


def xgen(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=120)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "xgen.cli.main", "data", *map(str, arguments)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains in two files, one broken line, and a store of them."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "in").mkdir()
    rows = [{"body": f"Document {n} of some words. " * 9, "kind": "ab"[n % 2], "from": f"s{n % 3}"} for n in range(200)]
    lines = [json.dumps(row) for row in rows]
    (folder / "in" / "1.jsonl").write_text("\n".join(lines[:100]) + "\n")
    (folder / "in" / "2.jsonl").write_text("\n".join([*lines[100:], '{"body": 7, "kind": "a", "from": "s"}']))
    (folder / "in" / "notes.txt").write_text("not read")
    result = xgen("build", folder / "store", *options(folder), "--on-bad-record", "quarantine", "--workers", 1)
    assert result.returncode == 0, result.stderr
    assert "built in" in result.stdout and "with tiktoken: 1 units" in result.stdout
    assert "quarantined 1 records" in result.stdout and "1 .txt" in result.stdout
    return folder


def options(folder: Path) -> list[object]:
    keys = ["--text-key", "body", "--domain-key", "kind", "--source-key", "from"]
    return ["--input", folder / "in", *keys, "--vocab-size", 300]


@pytest.fixture
def store(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "store", tmp_path / "store"))


def test_second_build_says_that_nothing_is_to_do(folder: Path) -> None:
    result = xgen("build", folder / "store", *options(folder), "--on-bad-record", "quarantine", "--json")
    facts = json.loads(result.stdout)
    assert (facts["units"], facts["units_found"], facts["num_documents"]) == (0, 0, 200)


def test_dry_run_says_what_would_be_read_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    result = xgen("build", tmp_path / "new", *options(folder), "--dry-run")
    assert result.returncode == 0 and list(tmp_path.iterdir()) == []
    assert result.stdout.splitlines() == [
        f"unit      0  {folder}/in/1.jsonl and 1 more",
        "2 files in 1 units; nothing was written",
        "  not read, being of no kind that is: 1 .txt",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--input", "/nosuch", "--domain", "web"],
            "/nosuch: does not exist; name a file, a folder, a URL, or hf:NAME\n",
        ),
        (["--input", "README.md", "--domain", "web"], "README.md: is of no known kind; it takes .jsonl"),
        (["--input", "/tmp"], "no domain given; write --domain NAME, or --domain-key KEY"),
        (["--input", "/tmp", "--domain", "w", "--engine", "fast"], "--engine 'fast' is not known; write auto or tikt"),
        (["--domain", "w", "--tokenizer", "/no.json"], "/no.json: does not exist; name a tokenizer.json\n"),
        (["--domain", "w"], "1.jsonl: line 1: has no 'text'; its keys are body, kind, from; mend or remove it, or"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(folder: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    given = arguments if "--input" in arguments else [*arguments, "--input", folder / "in"]
    result = xgen("build", tmp_path / "new", *given, "--vocab-size", 300)
    assert (result.returncode, result.stdout) == (2, "") and said in result.stderr
    assert result.stderr.count("\n") == 1 and not (tmp_path / "new").exists()


def test_info_shows_domains_lengths_and_what_was_left_out(folder: Path) -> None:
    shown = xgen("info", folder / "store").stdout
    assert "fingerprint" in shown and "quarantined 1 records" in shown and "source s2 (unknown)" in shown
    facts = json.loads(xgen("info", folder / "store", "--json").stdout)
    assert [d["name"] for d in facts["domains"]] == ["a", "b"] and facts["parts"] == 2
    assert facts["quarantine"] == {"has 'body' that is not text": 1} and facts["document_tokens"]["median"] > 10
    assert facts["fingerprint"] in shown


def test_verify_names_every_broken_file(store: Path, folder: Path) -> None:
    good = xgen("verify", store, folder / "store")
    assert good.returncode == 0 and good.stdout.count("verified, 8 files, fingerprint") == 2
    os.truncate(store / "parts/00000-a/tokens.bin", 10)
    (store / "parts/00001-b/sources.bin").unlink()
    data = bytearray((store / "tokenizer.json").read_bytes())
    data[5] ^= 1
    (store / "tokenizer.json").write_bytes(data)
    bad = xgen("verify", store, folder / "store", "--json")
    found = json.loads(bad.stdout)
    assert bad.returncode == 1 and found[str(folder / "store")]["verified"]
    assert sorted(found[str(store)]["faults"]) == [
        f"{store}/parts/00000-a/tokens.bin: has 10 bytes, and meta.json says {size(folder, '00000-a')}",
        f"{store}/parts/00001-b/sources.bin: No such file or directory",
        f"{store}/tokenizer.json: has another checksum than meta.json says",
    ]
    none = xgen("verify", store.parent)
    assert none.returncode == 1 and "is no token store" in none.stderr


def size(folder: Path, part: str) -> int:
    return (folder / "store/parts" / part / "tokens.bin").stat().st_size


def test_interrupted_build_shows_its_progress_leaves_no_process_and_can_go_on(folder: Path, tmp_path: Path) -> None:
    lines = json.dumps({"body": "Many words come here. " * 50, "kind": "a", "from": "s"}) + "\n"
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.jsonl").write_text(lines * 5000)
    arguments = ["--input", tmp_path / "in", *options(folder)[2:-2], "--tokenizer", folder / "store/tokenizer.json"]
    terminal, units = Terminal(), tmp_path / ".out.building" / "units"
    build = command("build", tmp_path / "out", *arguments, "--workers", 1)
    process = subprocess.Popen(build, cwd=ROOT, stderr=terminal.fd, stdout=terminal.fd)
    deadline = time.monotonic() + 60
    while not (units / "000000").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    shown = terminal.close()
    assert "units" in shown and "MB of text" in shown and "Traceback" not in shown
    time.sleep(0.5)
    assert children and not any(Path(f"/proc/{pid}/cwd").exists() for pid in children)
    again = json.loads(xgen("build", tmp_path / "out", *arguments, "--json").stdout)
    assert again["units_found"] >= 1 and again["num_documents"] == 15_000


def test_broken_record_of_one_worker_is_said_while_others_work(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        lines = json.dumps({"text": "Many words come here. " * 50}) + "\n"
        (tmp_path / "in" / f"{number}.jsonl").write_text(lines * 5000 if number != 1 else "{\n" + lines * 5000)
    tokenizer = folder / "store/tokenizer.json"
    result = xgen("build", tmp_path / "out", "--input", tmp_path / "in", "--domain", "w", "--tokenizer", tokenizer)
    assert result.returncode == 2 and "in/1.jsonl: line 1: is no JSON" in result.stderr
    assert result.stderr.count("\n") == 1


def test_command_starts_without_heavy_imports() -> None:
    code = (
        "import sys, xgen.cli.main; "
        "print({'torch', 'datasets', 'tokenizers', 'tiktoken', 'pyarrow', 'numpy', 'huggingface_hub'} & {*sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout == "set()\n"
