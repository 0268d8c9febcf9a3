"""`python -m xgen.evals.ruler` as a person meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "xgen.evals.ruler", "--cache", str(folder / "cache"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_lines_hold_prompt_answers_tokens_and_the_haystack(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "ruler.jsonl"
    inputs = ("--tokenizer", str(folder), "--haystack", str(folder / "haystack.txt"), "--out", str(out))
    done = run(folder, *inputs, "--task", "niah_multikey_1", "vt", "--length", "2048", "4096", "--count", "2")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(line["task"], line["length"], line["index"]) for line in lines] == [
        (task, length, index) for task in ("niah_multikey_1", "vt") for length in (2048, 4096) for index in (0, 1)
    ]
    assert all(0.99 * line["length"] <= line["tokens"] <= line["length"] for line in lines)
    assert "haystack.txt (" in lines[0]["haystack"] and lines[-1]["haystack"] == "synthetic"
    assert os.listdir(tmp_path) == ["ruler.jsonl"]  # noqa: PTH208


def test_a_mistake_is_one_line_that_says_what_to_write(folder: Path, tmp_path: Path) -> None:
    tokenizer = ("--tokenizer", str(folder))
    for arguments, expected in (
        (("--tokenizer", "/none"), "error: /none: does not exist; name a tokenizer.json or a folder that has one"),
        ((*tokenizer, "--task", "qa_1"), "error: qa_1: needs a question set; name a JSON file of SQuAD with --qa_1"),
        ((*tokenizer, "--task", "vt", "--out", "/none/x"), "error: /none/x: cannot be written"),
        ((*tokenizer, "--task", "vt", "--out", str(tmp_path)), "is no file; name a file with --out"),
    ):
        done = run(folder, *arguments)
        assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert expected in done.stderr


def test_help_has_examples(folder: Path) -> None:
    done = run(folder, "--help")
    assert "examples:" in done.stdout and "--length 32768 131072" in done.stdout
